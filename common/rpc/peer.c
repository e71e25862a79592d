#include "rpc/peer.h"

#include "crypto/cert.h"

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <string.h>

static enum err read_cert(const struct cert *cert, const char *federation, int64_t now_ms, struct peer *peer)
{
	struct identity id;
	TRY(cert_identity(cert, &id));
	if (strcmp(id.federation, federation) != 0)
		return err_set(ERR_UNAUTHENTIC, "your certificate is of the federation %s, this is %s", id.federation,
			       federation);
	/* The handshake has checked this, but a connection can outlive a certificate. */
	if (now_ms >= cert_not_after_ms(cert))
		return err_set(ERR_UNAUTHENTIC, "your certificate has expired");
	peer->id = id;
	peer->key = cert_key_digest(cert);
	return ERR_OK;
}

enum err peer_read(grpc_call *call, bool certificates, const char *federation, int64_t now_ms, struct peer *ret_peer)
{
	char *from = grpc_call_get_peer(call);
	*ret_peer = (struct peer){.id.role = ROLE_NOBODY};
	snprintf(ret_peer->from, sizeof ret_peer->from, "%s", from != NULL ? from : "?");
	gpr_free(from);
	if (!certificates)
		return ERR_OK;

	grpc_auth_context *auth = grpc_call_auth_context(call);
	if (auth == NULL)
		return err_set(ERR_UNAUTHENTIC, "the connection is not authenticated");
	grpc_auth_property_iterator it =
		grpc_auth_context_find_properties_by_name(auth, GRPC_X509_PEM_CERT_PROPERTY_NAME);
	const grpc_auth_property *pem = grpc_auth_property_iterator_next(&it);
	struct cert *cert = NULL;
	enum err e = ERR_OK;
	if (pem == NULL || !grpc_auth_context_peer_is_authenticated(auth))
		e = err_set(ERR_UNAUTHENTIC, "you have shown no certificate");
	if (e == ERR_OK)
		e = cert_parse((struct bytes){(const uint8_t *)pem->value, pem->value_length}, &cert);
	if (e == ERR_OK)
		e = read_cert(cert, federation, now_ms, ret_peer);
	cert_free(cert);
	grpc_auth_context_release(auth);
	return e == ERR_OK ? ERR_OK : ERR_UNAUTHENTIC;
}

const char *peer_format(const struct peer *peer, char out[PEER_TEXT_SIZE])
{
	if (peer->id.role == ROLE_NOBODY)
		snprintf(out, PEER_TEXT_SIZE, "%s", peer->from);
	else
		snprintf(out, PEER_TEXT_SIZE, "%s/%s at %s", role_name(peer->id.role), peer->id.name, peer->from);
	return out;
}
