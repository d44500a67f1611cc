"""The tracers that figures.py compares, each made the way its documentation says.

A contestant is what makes one pair: a function to call for a start and an end of a model call with
2 KB of prompt and 1 KB of answer, given what another makes that is LangChain's to make; the callbacks
to give to LangChain; and what waits until all is sent. Making one raises ImportError where it is not
installed.
"""

import os
import sys
import uuid

SERIALIZED = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "chat_models", "openai", "ChatOpenAI"],
    "kwargs": {"model_name": "gpt-4o", "temperature": 0.5},
    "name": "ChatOpenAI",
}
METADATA = {
    "ls_provider": "openai",
    "ls_model_name": "gpt-4o",
    "ls_model_type": "chat",
    "ls_temperature": 0.5,
    "langgraph_step": 1,
    "langgraph_node": "model",
    "langgraph_triggers": ("branch:to:model",),
    "langgraph_path": ("__pregel_pull", "model"),
    "langgraph_checkpoint_ns": "model:01a22354-f1ee-7505-b9d7-32816981c676",
    "checkpoint_ns": "model:01a22354-f1ee-7505-b9d7-32816981c676",
}
PARAMETERS = {
    "model": "gpt-4o",
    "model_name": "gpt-4o",
    "stream": False,
    "temperature": 0.5,
    "_type": "openai-chat",
    "stop": None,
}


def conversation():
    from langchain_core.messages import HumanMessage, SystemMessage

    return [[SystemMessage("You are helpful."), HumanMessage("x" * 2000)]]


def answer():
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, LLMResult

    usage = {"input_tokens": 1034, "output_tokens": 118, "total_tokens": 1152}
    usage["input_token_details"] = {"cache_read": 768}
    usage["output_token_details"] = {"reasoning": 32}
    told = {"prompt_tokens": 1034, "completion_tokens": 118, "total_tokens": 1152}
    said = {"token_usage": told, "model_name": "gpt-4o-2026-08-07", "finish_reason": "stop", "id": "chatcmpl-1"}
    message = AIMessage("y" * 1000, usage_metadata=usage, response_metadata=said)
    choice = ChatGeneration(message=message, generation_info={"finish_reason": "stop"})
    return LLMResult(generations=[[choice]], llm_output={"token_usage": told, "model_name": "gpt-4o-2026-08-07"})


class Contestant:
    def __init__(self, pair, callbacks=None, flush=lambda: None, prepare=lambda: None):
        self.pair, self.callbacks, self.flush, self.prepare = pair, callbacks, flush, prepare


def with_handler(handler, flush):
    """Calls a LangChain handler as the library does."""
    messages, result = conversation(), answer()

    def prepare():
        ids = {"run_id": uuid.uuid4(), "parent_run_id": None}
        about = {"metadata": dict(METADATA), "invocation_params": PARAMETERS, "options": {"stop": None}}
        return ids, about

    def pair(made):
        ids, about = made
        handler.on_chat_model_start(
            SERIALIZED, messages, tags=["seq:step:1"], name=None, batch_size=1, **ids, **about
        )
        handler.on_llm_end(result, tags=["seq:step:1"], **ids)

    return Contestant(pair, [handler], flush, prepare)


def nothing():
    from langchain_core.callbacks import BaseCallbackHandler

    class Handler(BaseCallbackHandler):
        run_inline = True

        def on_chat_model_start(self, *args, **kwargs):
            pass

    return with_handler(Handler(), lambda: None)


def sidelight():
    import sidelight

    if "sidelight._fast" not in sys.modules:
        raise ImportError("sidelight._fast was not built")
    return with_handler(sidelight.SidelightCallbackHandler(), lambda: sidelight.flush(10))


def sidelight_in_python():
    sys.modules["sidelight._fast"] = None
    import sidelight

    return with_handler(sidelight.SidelightCallbackHandler(), lambda: sidelight.flush(10))


def _provider():
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=os.environ["SINK"] + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def opentelemetry():
    """A span with 12 short attributes, no content."""
    provider = _provider()
    tracer = provider.get_tracer("bench")
    attributes = {f"gen_ai.attribute.{n}": n if n % 2 else f"value {n}" for n in range(12)}

    def pair(_):
        with tracer.start_as_current_span("chat gpt-4o") as span:
            for name, value in attributes.items():
                span.set_attribute(name, value)

    return Contestant(pair, None, provider.force_flush)


def openinference():
    from openinference.instrumentation import OITracer, TraceConfig
    from openinference.instrumentation.langchain._tracer import OpenInferenceTracer

    provider = _provider()
    tracer = OITracer(provider.get_tracer("bench"), config=TraceConfig())
    return with_handler(OpenInferenceTracer(tracer, False), provider.force_flush)


def traceloop():
    from opentelemetry.instrumentation.langchain import TraceloopCallbackHandler
    from opentelemetry.metrics import get_meter

    provider, meter = _provider(), get_meter("bench")
    handler = TraceloopCallbackHandler(
        provider.get_tracer("bench"), meter.create_histogram("duration"), meter.create_histogram("tokens")
    )
    return with_handler(handler, provider.force_flush)


def langfuse():
    from langfuse import Langfuse
    from langfuse.langchain import CallbackHandler

    client = Langfuse(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=os.environ["SINK"])
    return with_handler(CallbackHandler(), client.flush)


ALL = {
    "nothing": nothing,
    "Sidelight": sidelight,
    "Sidelight, all Python": sidelight_in_python,
    "OpenTelemetry SDK, 12 attributes": opentelemetry,
    "Traceloop": traceloop,
    "Langfuse": langfuse,
    "OpenInference": openinference,
}
