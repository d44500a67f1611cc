/* signals.h - the signals of OpenTelemetry that leave here. */
#pragma once

enum otlp_signal { SIGNAL_TRACES, SIGNAL_LOGS, SIGNAL_METRICS, SIGNAL_COUNT };
