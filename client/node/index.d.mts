export * from './index.js';
declare const sidelight: typeof import('./index.js');
export default sidelight;
