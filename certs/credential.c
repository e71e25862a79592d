/*
 * A credential directory is whole when it has cert.pem: that file is written last, and taken away first when the key
 * changes.
 */
#include "certs/credential.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/file.h"
#include "crypto/address.h"
#include "crypto/random.h"

#include <stdlib.h>
#include <string.h>

enum { PEM_MAX = 64 * 1024, PEER_MAX = 4096 };

/* peer.yaml */
struct peer {
	char *address;
	char *identity;
};

static const struct config_row peer_rows[] = {
	{"address", CONFIG_STRING, offsetof(struct peer, address), .help = "HOST:PORT of the coordinator"},
	{"identity", CONFIG_STRING, offsetof(struct peer, identity), .required = true,
	 .help = "our own identity (URI)"},
	{0},
};

struct paths {
	char key[PATH_SIZE], cert[PATH_SIZE], ca[PATH_SIZE], peer[PATH_SIZE];
};

static void paths_of(const char *dir, struct paths *p)
{
	path_join(p->key, dir, "key.pem");
	path_join(p->cert, dir, "cert.pem");
	path_join(p->ca, dir, "ca.pem");
	path_join(p->peer, dir, "peer.yaml");
}

static enum err peer_load(const char *path, struct credential *c)
{
	struct peer peer;
	struct address address;
	char own[IDENTITY_TEXT_SIZE];
	TRY(config_load(peer_rows, path, &peer));
	enum err e = ERR_OK;
	if (strcmp(peer.identity, identity_format(&c->id, own)) != 0)
		e = err_set(ERR_CORRUPT, "%s: identity is %s, but the certificate says %s", path, peer.identity, own);
	else if (peer.address != NULL && address_parse(peer.address, &address) != ERR_OK)
		e = err_add(ERR_CONFIG, "%s: address", path);
	else
		c->address = mem_str(peer.address);
	config_free(peer_rows, &peer);
	return e;
}

static enum err peer_save(const char *path, const struct identity *id, const char *address)
{
	struct buf text;
	struct address parsed;
	char own[IDENTITY_TEXT_SIZE];
	if (address != NULL)
		TRY(address_parse(address, &parsed));
	buf_init(&text, PEER_MAX);
	enum err e = ERR_OK;
	if (address != NULL) /* what address_parse() lets through needs no escapes between quotes */
		e = buf_printf(&text, "address: \"%s\"\n", address);
	if (e == ERR_OK)
		e = buf_printf(&text, "identity: \"%s\"\n", identity_format(id, own));
	if (e == ERR_OK)
		e = file_replace(path, buf_bytes(&text), 0644);
	buf_deinit(&text);
	return e;
}

/* Do the parts belong together, and are they valid now? */
static enum err check_parts(const struct credential *c, int64_t now_ms)
{
	struct cert *ca = NULL;
	char when[CLOCK_TEXT_SIZE];
	struct digest ours = key_public_digest(c->key), theirs = cert_key_digest(c->cert);
	if (!digest_equal(&ours, &theirs))
		return err_set(ERR_CORRUPT, "%s: key.pem is not the key of cert.pem; enrol again", c->dir);
	if (cert_not_after_ms(c->cert) <= now_ms)
		return err_set(ERR_UNAUTHENTIC, "%s: the certificate expired on %s; enrol again", c->dir,
			       clock_format(cert_not_after_ms(c->cert), when));
	TRY(cert_parse(buf_bytes(&c->ca_pem), &ca));
	enum err e = cert_verify(c->cert, ca, now_ms);
	if (e != ERR_OK)
		e = err_add(e, "%s: cert.pem, valid until %s", c->dir, clock_format(cert_not_after_ms(c->cert), when));
	cert_free(ca);
	return e;
}

static enum err load_parts(const struct paths *p, struct credential *c)
{
	if (!file_exists(p->cert))
		return err_set(ERR_NOT_FOUND, "%s: no credential here; get one with: hansa enroll JOIN-CODE --dir DIR",
			       c->dir);
	TRY(file_read(p->cert, PEM_MAX, &c->cert_pem));
	if (cert_parse(buf_bytes(&c->cert_pem), &c->cert) != ERR_OK)
		return err_add(ERR_CORRUPT, "%s", p->cert);
	TRY(key_load(p->key, &c->key));
	TRY(key_pem(c->key, &c->key_pem));
	TRY(file_read(p->ca, PEM_MAX, &c->ca_pem));
	return cert_identity(c->cert, &c->id);
}

enum err credential_load(const char *dir, int64_t now_ms, struct credential *ret_cred)
{
	struct paths p;
	struct credential c = {.dir = mem_str(dir)};
	paths_of(dir, &p);
	enum err e = load_parts(&p, &c);
	if (e == ERR_OK)
		e = check_parts(&c, now_ms);
	if (e == ERR_OK)
		e = peer_load(p.peer, &c);
	if (e != ERR_OK) {
		credential_free(&c);
		return e;
	}
	*ret_cred = c;
	return ERR_OK;
}

void credential_free(struct credential *c)
{
	key_free(c->key);
	cert_free(c->cert);
	secret_wipe(c->key_pem.p, c->key_pem.n);
	buf_deinit(&c->key_pem);
	buf_deinit(&c->cert_pem);
	buf_deinit(&c->ca_pem);
	free(c->address);
	free(c->dir);
	*c = (struct credential){0};
}

static bool has_other_key(const char *path, const struct key *key)
{
	struct key *old = NULL;
	if (key_load(path, &old) != ERR_OK)
		return true;
	struct digest a = key_public_digest(old), b = key_public_digest(key);
	key_free(old);
	return !digest_equal(&a, &b);
}

enum err credential_save(const char *dir, const struct key *key, const struct cert *cert, struct bytes ca_pem,
			 const char *address)
{
	struct paths p;
	struct identity id;
	struct address parsed;
	struct buf pem = {0};
	struct digest ours = key_public_digest(key), theirs = cert_key_digest(cert);
	if (address != NULL) /* before anything is written */
		TRY(address_parse(address, &parsed));
	if (!digest_equal(&ours, &theirs))
		return err_set(ERR_UNAUTHENTIC, "the certificate is for another key than ours");
	TRY(cert_identity(cert, &id));
	paths_of(dir, &p);
	TRY(dir_make(dir, 0700));
	if (file_exists(p.cert) && has_other_key(p.key, key))
		TRY(file_remove(p.cert));
	TRY(key_save(key, p.key));
	TRY(file_replace(p.ca, ca_pem, 0644));
	TRY(peer_save(p.peer, &id, address));
	TRY(cert_pem(cert, &pem));
	enum err e = file_replace(p.cert, buf_bytes(&pem), 0644);
	buf_deinit(&pem);
	return e;
}

enum err credential_set_address(const char *dir, const char *address)
{
	struct paths p;
	struct cert *cert = NULL;
	struct identity id;
	paths_of(dir, &p);
	TRY(cert_load(p.cert, &cert));
	enum err e = cert_identity(cert, &id);
	cert_free(cert);
	if (e != ERR_OK)
		return err_add(e, "%s", p.cert);
	return peer_save(p.peer, &id, address);
}
