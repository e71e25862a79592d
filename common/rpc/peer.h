/*
 * Who calls: read from the certificate of the connection, for every call anew.
 */
#ifndef HANSA_RPC_PEER_H
#define HANSA_RPC_PEER_H

#include "rpc/server.h"

#include <grpc/grpc.h>

/*
 * With certificates: exactly one identity, of `federation`, in a certificate that is valid now; else ERR_UNAUTHENTIC.
 * Without: nobody. ret_peer->from is set in every case.
 */
MUST_CHECK enum err peer_read(grpc_call *call, bool certificates, const char *federation, int64_t now_ms,
			      struct peer *ret_peer);

/* "plant/p1 at ipv4:..." for logs; returns out. */
enum { PEER_TEXT_SIZE = 256 };
const char *peer_format(const struct peer *peer, char out[PEER_TEXT_SIZE]);

#endif
