/*
 * Who calls: told by the certificate of the connection, judged anew for every call.
 */
#ifndef HANSA_RPC_PEER_H
#define HANSA_RPC_PEER_H

#include "rpc/peer_cache.h"
#include "rpc/server.h"

#include <grpc/grpc.h>

/*
 * With a cache: exactly one identity, of `federation`, in a certificate that is valid now; else ERR_UNAUTHENTIC.
 * NULL, on a port without client certificates: nobody. ret_peer->from is set in every case.
 */
MUST_CHECK enum err peer_read(grpc_call *call, struct peer_cache *cache, const char *federation, int64_t now_ms,
			      struct peer *ret_peer);

/* "plant/p1 at ipv4:..." for logs; returns out. */
enum { PEER_TEXT_SIZE = 256 };
const char *peer_format(const struct peer *peer, char out[PEER_TEXT_SIZE]);

#endif
