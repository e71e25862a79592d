/*
 * TLS for both ends. That it is TLS 1.3 without tickets is the business of crypto/tls.h; here: who must show what to
 * whom.
 */
#ifndef HANSA_RPC_CREDENTIALS_H
#define HANSA_RPC_CREDENTIALS_H

#include "base/err.h"
#include "base/mem.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

struct credentials_pem {
	struct bytes key, cert, ca; /* key and cert empty: none */
};

/* ERR_CONFIG when key, certificate and CA do not parse or do not fit together. `client_certificates`: required, signed
 * by `ca`. */
MUST_CHECK enum err credentials_server(const struct credentials_pem *pem, bool client_certificates,
				       grpc_server_credentials **ret_creds);

/*
 * For a client: the server's chain must end in `ca`, its certificate must be for the host that was dialled and have the
 * one identity spiffe://FEDERATION/coordinator. The verdict of the last refusal can be asked for; gRPC itself only says
 * "unavailable".
 */
struct credentials_check;
MUST_CHECK enum err credentials_client(const struct credentials_pem *pem, const char *federation,
				       struct credentials_check **ret_check, grpc_channel_credentials **ret_creds);
void credentials_check_free(struct credentials_check *check); /* NULL is fine */
/* Copies the reason of a refusal since the last call and forgets it; false when there was none. thread: any */
bool credentials_check_take(struct credentials_check *check, char *out, size_t size);

#endif
