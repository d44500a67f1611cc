/** Tells a collector what happens inside an AI agent. No call throws, blocks or prints. */

export type Kind = 'agent' | 'chain' | 'llm' | 'tool' | 'retriever' | 'embedding' | 'other';

export interface SpanOptions {
  kind?: Kind;
  input?: unknown;
  model?: string;
  provider?: string;
  /** The conversation. */
  session?: string;
  /** The person. */
  user?: string;
  tags?: string[];
  /** The run that this one is part of, if not the one around it. */
  parent?: Run | string | Uint8Array;
  /** W3C trace context, for a run whose parent is in another process. */
  traceparent?: string;
  /** Every other name is an attribute. */
  [attribute: string]: unknown;
}

export interface Results {
  output?: unknown;
  /** Token counts in the provider's own words. */
  usage?: unknown;
  model?: string;
  finish?: string | string[];
  error?: unknown;
  /** Every other name is an attribute. */
  [attribute: string]: unknown;
}

export interface Run {
  /** 32 hex digits. */
  readonly traceId: string;
  set(fields: Results): this;
  /** Adds something that happened just now. */
  event(name: string, attributes?: Record<string, unknown>): void;
  end(fields?: Results): void;
  /** W3C trace context, to be given to another process. */
  traceparent(): string;
}

export interface WrapOptions extends SpanOptions {
  name?: string;
}

/** Reports `name` for as long as `work(run)` takes, its promise included. Returns what it returns. */
export function span<T>(name: string, options: SpanOptions | undefined, work: (run: Run) => T): T;
export function span<T>(name: string, work: (run: Run) => T): T;
/** A run to be ended by `end()`. */
export function span(name: string, options?: SpanOptions): Run;

type Wrap = <F extends (...args: any[]) => any>(fn: F, options?: WrapOptions) => F;

/** The function, each call of which is a run of that kind: sync, async, or a generator of either. */
export const agent: Wrap;
export const chain: Wrap;
export const llm: Wrap;
export const retriever: Wrap;
export const tool: Wrap;

/** Adds something that happened just now to the current run; nothing without one. */
export function event(name: string, attributes?: Record<string, unknown>): void;

/** W3C trace context of the current run, else of the process's TRACEPARENT. */
export function traceparent(): string | undefined;

export interface Configuration {
  /** `service.name`. */
  service?: string;
  /** Further resource attributes. */
  resource?: Record<string, unknown>;
  /** The collector's socket. */
  socket?: string;
  /** How many bytes may wait for the collector; 4 MiB. */
  buffer?: number;
}

export function configure(configuration: Configuration): void;

/** Resolves to true once all that was reported is on the collector's disk. */
export function flush(timeoutMs?: number): Promise<boolean>;

export interface Span {
  trace_id: string;
  span_id: string;
  parent_span_id: string | null;
  name: string;
  kind: Kind;
  start_time: string;
  end_time: string | null;
  latency_ms: number;
  status: { code: 'ok' | 'error' | 'running' | 'cancelled'; message: string };
  attributes: Record<string, unknown>;
  service: string | null;
}

/** A trace as the collector has it, after a flush; null if it has none. */
export function trace(traceId: string, timeoutMs?: number): Promise<{ trace: Record<string, unknown>; spans: Span[] } | null>;

export interface InstallOptions {
  only?: ('langchain' | 'openai')[];
}

/** Reports all runs of the libraries that are here. Resolves to their names. */
export function install(options?: InstallOptions): Promise<string[]>;

/** A LangChain.js handler, for `callbacks: [handler()]`. */
export function handler(): any;

/** Reports the calls of one OpenAI client. Returns it. */
export function wrapOpenAI<T>(client: T): T;

/** Tells how a child process ends, so that the runs it had open say it too. */
export function watch(child: { pid?: number; once(event: 'exit', listener: (...args: any[]) => void): unknown }): void;
