#include "export/transport_hint.h"

#include <string.h>

#define BROKEN_HINT "the backend, or a proxy before it, ended the connection: see its log"

/* TLS libraries say what is wrong with whom in words only. */
static const char *tls_hint(const char *words)
{
	static const struct {
		const char *words, *hint;
	} table[] = {
		{"has expired", "the backend's certificate has expired: it must be renewed there"},
		{"not yet valid",
	         "the backend's certificate is not valid yet: are the clocks right?"},
		{"subject name",
	         "the certificate is for another name: check the endpoint's host, or "
	         "set tls.server_name"},
		{"does not match",
	         "the certificate is for another name: check the endpoint's host, or "
	         "set tls.server_name"},
		{"certificate required",
	         "the backend wants a client certificate: set tls.cert_file and "
	         "tls.key_file"},
		{"handshake failure",
	         "the backend may want a client certificate: tls.cert_file and "
	         "tls.key_file"},
		{"alert unknown ca", "the backend doesn't know the CA of tls.cert_file"},
		{"alert",
	         "the backend refused the handshake: check tls.cert_file and tls.min_version"},
		{"wrong version number", "no TLS is spoken there: http:// instead of https://?"},
		{"issuer", "the certificate's CA is not known here: give its file as tls.ca_file"},
		{"self-signed",
	         "the certificate's CA is not known here: give its file as tls.ca_file"},
		{"self signed",
	         "the certificate's CA is not known here: give its file as tls.ca_file"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcasestr(words, table[i].words))
			return table[i].hint;
	return "check the endpoint's scheme and its certificate";
}

static const char *protocol_hint(bool grpc)
{
	return grpc ? "does it speak OTLP over gRPC there? (usually port 4317; 4318 is HTTP)"
	            : "does it speak OTLP over HTTP there? (usually port 4318; 4317 is gRPC)";
}

const char *transport_hint(CURLcode code, const char *words, const struct endpoint *endpoint,
                           bool grpc)
{
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		return endpoint->socket
		               ? "is the backend running, and may sidelightd open its socket?"
		               : "is the backend running?";
	case CURLE_COULDNT_RESOLVE_HOST:
		return "check the endpoint's host name";
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "check the host name in the proxy variable";
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		return endpoint->tls ? tls_hint(words) : "";
	case CURLE_RECV_ERROR: // TLS 1.3 tells of a client certificate only then
		return endpoint->tls ? tls_hint(words) : BROKEN_HINT;
	case CURLE_SEND_ERROR:
		return BROKEN_HINT;
	case CURLE_SSL_CERTPROBLEM:
		return "check tls.cert_file and tls.key_file";
	case CURLE_SSL_CACERT_BADFILE:
		return "check tls.ca_file";
	case CURLE_OPERATION_TIMEDOUT:
		return "is the endpoint right, and no firewall in between? a backend that is only "
		       "slow needs a longer timeout";
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_GOT_NOTHING:
	case CURLE_HTTP2:
		return protocol_hint(grpc);
	default:
		return "";
	}
}
