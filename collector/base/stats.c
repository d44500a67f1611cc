#include "base/stats.h"

const char *refusal_label(enum refusal r)
{
	static const char *const labels[REFUSAL_COUNT] = {
#define X(id, label) [REFUSED_##id] = (label),
		REFUSAL_TABLE(X)
#undef X
	};

	return r > REFUSAL_NONE && r < REFUSAL_COUNT ? labels[r] : "none";
}

const char *rejection_label(enum rejection r)
{
	static const char *const labels[REJECTION_COUNT] = {
#define X(id, label) [REJECTED_##id] = (label),
		REJECTION_TABLE(X)
#undef X
	};

	return (unsigned)r < REJECTION_COUNT ? labels[r] : "none";
}
