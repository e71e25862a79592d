/*
 * hansa enroll: a key is made here, and certified over a connection pinned to the fingerprint in the join code.
 *
 * A repeat after a lost reply works: the key is kept in key.pem from before the request on, and the coordinator gives
 * the same answer to the same key. cert.pem, written last, makes the folder complete.
 */
#include "base/clock.h"
#include "base/file.h"
#include "certs/credential.h"
#include "certs/joincode.h"
#include "client/commands.h"
#include "crypto/random.h"
#include "crypto/tls.h"
#include "rpc/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct enroll_args {
	const char *dir;
};

enum { ENROLL_CONNECT_MS = 15000 };

/* The key of an earlier try whose reply was lost, or a new one. */
static enum err load_or_make_key(const char *dir, struct key **ret_key)
{
	char path[PATH_SIZE];
	path_join(path, dir, "key.pem");
	if (file_exists(path))
		return key_load(path, ret_key);
	struct key *key;
	TRY(dir_make(dir, 0700));
	TRY(key_generate(KEY_P256, &key));
	enum err err = key_save(key, path);
	if (err != ERR_OK) {
		key_free(key);
		return err;
	}
	*ret_key = key;
	return ERR_OK;
}

static enum err ask(const struct joincode *code, struct bytes ca_pem, struct bytes csr,
		    struct wire_enroll_reply *ret_reply)
{
	struct rpc_client_config config = {
		.address = code->address, .ca_pem = ca_pem, .federation = code->id.federation};
	struct wire_enroll_request request = {.csr = csr};
	memcpy(request.secret, code->secret, sizeof request.secret);
	struct rpc_client *client = NULL;
	struct buf packed, reply = {0};
	buf_init(&packed, WIRE_CSR_MAX + 1024);
	enum err err = rpc_client_new(&config, &client);
	if (err == ERR_OK)
		err = wire_enroll_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_call(client, METHOD_ENROLL, buf_bytes(&packed), 0, &reply);
	if (err == ERR_OK)
		err = wire_enroll_reply_unpack(buf_bytes(&reply), ret_reply);
	secret_wipe(&request, sizeof request);
	buf_deinit(&packed);
	buf_deinit(&reply);
	rpc_client_free(client);
	return err;
}

/* The certificate that came back must be for us, for our key, from the CA that the code names. */
static enum err check_and_save(const struct joincode *code, const char *dir, const struct key *key,
			       const struct wire_enroll_reply *reply, struct bytes ca_pem)
{
	struct cert *cert = NULL, *ca = NULL;
	struct identity id;
	enum err err = cert_parse(buf_bytes(&reply->certificate), &cert);
	if (err == ERR_OK)
		err = cert_parse(ca_pem, &ca);
	if (err == ERR_OK)
		err = cert_identity(cert, &id);
	if (err == ERR_OK)
		err = cert_verify(cert, ca, clock_wall_ms());
	if (err == ERR_OK) {
		struct digest theirs = cert_key_digest(cert), ours = key_public_digest(key);
		if (!identity_equal(&id, &code->id) || !digest_equal(&theirs, &ours))
			err = err_set(ERR_UNAUTHENTIC,
				      "the coordinator sent a certificate for somebody else; nothing was written");
	}
	if (err == ERR_OK)
		err = credential_save(dir, key, cert, ca_pem, reply->address);
	cert_free(cert);
	cert_free(ca);
	return err;
}

static enum err enroll(const void *p, const char *const *words, size_t n_words)
{
	(void)n_words;
	const struct enroll_args *args = p;
	struct joincode code;
	TRY(joincode_parse(words[0], &code));
	char path[PATH_SIZE];
	if (file_exists(path_join(path, args->dir, "cert.pem")))
		return err_set(ERR_STATE, "%s: there is a credential already; choose another --dir", args->dir);
	if (code.expires_ms < clock_wall_ms())
		return err_set(ERR_DENIED,
			       "this join code has expired (or this machine's clock is wrong); ask for a new one");
	struct key *key = NULL;
	struct buf ca_pem = {0}, csr = {0};
	struct wire_enroll_reply reply = {0};
	char id[IDENTITY_TEXT_SIZE];
	enum err err = load_or_make_key(args->dir, &key);
	if (err == ERR_OK)
		err = tls_fetch_ca(code.address, &code.ca_fingerprint, ENROLL_CONNECT_MS, &ca_pem);
	if (err == ERR_OK)
		err = csr_make(key, &code.id, &csr);
	if (err == ERR_OK) {
		rpc_init();
		err = ask(&code, buf_bytes(&ca_pem), buf_bytes(&csr), &reply);
		rpc_shutdown();
	}
	if (err == ERR_OK)
		err = check_and_save(&code, args->dir, key, &reply, buf_bytes(&ca_pem));
	if (err == ERR_OK)
		printf("enrolled as %s; coordinator %s; credential in %s\n", identity_format(&code.id, id),
		       reply.address, args->dir);
	wire_enroll_reply_free(&reply);
	buf_deinit(&ca_pem);
	buf_deinit(&csr);
	key_free(key);
	secret_wipe(&code, sizeof code);
	return err;
}

static const struct cli_option options[] = {
	{"dir", 'd', CLI_STRING, offsetof(struct enroll_args, dir), "DIR", "where to keep key and certificate",
	 .required = true},
	{0},
};

const struct cli_command command_enroll = {
	.name = "enroll",
	.arguments = "JOIN-CODE",
	.summary = "make a key here and get it certified by the federation",
	.help = "The join code comes from the operator (`hansactl invite PLANT`): it names the coordinator, pins its "
		"certificate authority, and is\n"
		"good once. The private key is made on this machine and never leaves it.\n\n"
		"Example:\n  hansa enroll hansa1-AAAB... --dir identity\n",
	.options = options,
	.args_size = sizeof(struct enroll_args),
	.positional_min = 1,
	.positional_max = 1,
	.run = enroll,
};
