// node --import sidelight/register app.mjs: install() without a change to the program.
import { install } from './index.mjs';

await install();
