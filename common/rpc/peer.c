#include "rpc/peer.h"

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <stdio.h>

enum err peer_read(grpc_call *call, struct peer_cache *cache, const char *federation, int64_t now_ms,
		   struct peer *ret_peer)
{
	char *from = grpc_call_get_peer(call);
	*ret_peer = (struct peer){.id.role = ROLE_NOBODY};
	snprintf(ret_peer->from, sizeof ret_peer->from, "%s", from != NULL ? from : "?");
	gpr_free(from);
	if (cache == NULL)
		return ERR_OK;

	grpc_auth_context *auth = grpc_call_auth_context(call);
	if (auth == NULL)
		return err_set(ERR_UNAUTHENTIC, "the connection is not authenticated");
	grpc_auth_property_iterator it =
		grpc_auth_context_find_properties_by_name(auth, GRPC_X509_PEM_CERT_PROPERTY_NAME);
	const grpc_auth_property *pem = grpc_auth_property_iterator_next(&it);
	struct peer_facts facts = {0};
	enum err e = ERR_OK;
	if (pem == NULL || !grpc_auth_context_peer_is_authenticated(auth))
		e = err_set(ERR_UNAUTHENTIC, "you have shown no certificate");
	if (e == ERR_OK)
		e = peer_cache_read(cache, (struct bytes){(const uint8_t *)pem->value, pem->value_length}, &facts);
	if (e == ERR_OK)
		e = peer_facts_check(&facts, federation, now_ms);
	grpc_auth_context_release(auth);
	if (e != ERR_OK)
		return ERR_UNAUTHENTIC;
	ret_peer->id = facts.id;
	ret_peer->key = facts.key;
	return ERR_OK;
}

const char *peer_format(const struct peer *peer, char out[PEER_TEXT_SIZE])
{
	if (peer->id.role == ROLE_NOBODY)
		snprintf(out, PEER_TEXT_SIZE, "%s", peer->from);
	else
		snprintf(out, PEER_TEXT_SIZE, "%s/%s at %s", role_name(peer->id.role), peer->id.name, peer->from);
	return out;
}
