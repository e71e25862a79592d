#include "coordinator/federation.h"

#include "base/text.h"
#include "crypto/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEM_MAX = 128 << 10, HOST_SIZE = 256 };

/* ---- making one ---- */

/* All that init itself makes; anything else in the directory belongs to somebody else. */
static const char *const ours[] = {"ca",    "coordinator", "operator",     "log",          "models",
				   "spool", "hansa.db",    "hansa.db-wal", "hansa.db-shm", "hansa.db-journal",
				   ".lock"};

static enum err is_ours(void *arg, const char *name)
{
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
		if (strcmp(name, ours[i]) == 0)
			return ERR_OK;
	}
	return err_set(ERR_STATE, "%s: has other things in it (%s); name a new or empty directory", (const char *)arg,
		       name);
}

static enum err claim(const char *dir)
{
	char path[PATH_SIZE];
	if (strlen(dir) > PATH_SIZE / 2)
		return err_set(ERR_LIMIT, "%.100s...: the path is too long", dir);
	if (file_exists(path_join(path, dir, SETTINGS_FILE)))
		return err_set(ERR_STATE, "%s: there is a federation already; nothing was changed", dir);
	/* No const in the callback's argument: it is only printed. */
	char *shown = mem_str(dir);
	enum err err = file_exists(dir) ? dir_each(dir, is_ours, shown) : ERR_OK;
	free(shown);
	TRY(err);
	return dir_make(dir, 0700);
}

static enum err open_ca(const char *dir, const char *name, int64_t now_ms, struct ca **ret_ca)
{
	char path[PATH_SIZE];
	struct ca *ca = NULL;
	if (!file_exists(path_join(path, path_join(path, dir, "ca"), "cert.pem")))
		TRY(ca_create(dir, name, now_ms));
	TRY(ca_open(dir, &ca));
	if (strcmp(ca_federation(ca), name) != 0) {
		enum err err = err_set(
			ERR_STATE,
			"%s: was begun for federation %s; go on with --federation %s, or name another directory", dir,
			ca_federation(ca), ca_federation(ca));
		ca_close(ca);
		return err;
	}
	*ret_ca = ca;
	return ERR_OK;
}

/* A key and a certificate for it, in DIR/FOLDER. */
static enum err make_credential(const char *dir, const char *folder, const struct ca *ca, const struct identity *id,
				const char *const *hosts, const char *address, int64_t now_ms,
				struct member *ret_member)
{
	char path[PATH_SIZE];
	struct key *key = NULL;
	struct cert *cert = NULL;
	struct buf ca_pem = {0};
	enum err err = key_generate(KEY_P256, &key);
	if (err == ERR_OK)
		err = ca_issue(ca, key, id, hosts, now_ms, &cert);
	if (err == ERR_OK)
		err = cert_pem(ca_cert(ca), &ca_pem);
	if (err == ERR_OK)
		err = credential_save(path_join(path, dir, folder), key, cert, buf_bytes(&ca_pem), address);
	if (err == ERR_OK) {
		*ret_member = (struct member){.role = id->role,
					      .key = key_public_digest(key),
					      .expires_ms = cert_not_after_ms(cert),
					      .enrolled_ms = now_ms};
		snprintf(ret_member->name, sizeof ret_member->name, "%s", id->name);
	}
	buf_deinit(&ca_pem);
	cert_free(cert);
	key_free(key);
	return err;
}

static enum err make_log_key(const char *dir)
{
	char folder[PATH_SIZE], path[PATH_SIZE];
	struct key *key = NULL;
	struct buf pem = {0};
	TRY(dir_make(path_join(folder, dir, "log"), 0700));
	path_join(path, folder, "key.pem");
	enum err err = file_exists(path) ? key_load(path, &key) : key_generate(KEY_ED25519, &key);
	if (err == ERR_OK && !file_exists(path))
		err = key_save(key, path);
	if (err == ERR_OK)
		err = key_public_pem(key, &pem);
	if (err == ERR_OK)
		err = file_replace(path_join(path, folder, "public.pem"), buf_bytes(&pem), 0644);
	buf_deinit(&pem);
	key_free(key);
	return err;
}

static enum err make_database(const char *dir, const struct member *admin)
{
	char path[PATH_SIZE];
	struct db *db;
	TRY(db_open(path_join(path, dir, "hansa.db"), &db));
	enum err err = db_member_put(db, admin);
	db_close(db);
	TRY(err);
	TRY(dir_make(path_join(path, dir, "models"), 0700));
	return dir_make(path_join(path, dir, "spool"), 0700);
}

/* What the operator dials until serve writes the port that it really got. */
static const char *first_address(const struct federation_plan *plan, const char *advertise, char out[WIRE_ADDRESS_SIZE])
{
	const char *colon = strrchr(plan->listen != NULL ? plan->listen : SETTINGS_LISTEN, ':');
	int64_t port;
	bool known = colon != NULL && text_to_int(colon + 1, &port) && port > 0 && port <= UINT16_MAX;
	return settings_address(advertise, known ? (int)port : 1, out);
}

static enum err fill(const char *dir, const struct federation_plan *plan, const char *const *hosts,
		     const struct settings *s, int64_t now_ms)
{
	char address[WIRE_ADDRESS_SIZE];
	struct ca *ca = NULL;
	struct identity coordinator, admin;
	struct member member;
	TRY(identity_make(ROLE_COORDINATOR, s->federation, "", &coordinator));
	TRY(identity_make(ROLE_OPERATOR, s->federation, FEDERATION_ADMIN, &admin));
	TRY(open_ca(dir, s->federation, now_ms, &ca));
	enum err err = make_credential(dir, "coordinator", ca, &coordinator, hosts, NULL, now_ms, &member);
	if (err == ERR_OK)
		err = make_credential(dir, "operator", ca, &admin, NULL, first_address(plan, s->advertise, address),
				      now_ms, &member);
	ca_close(ca);
	TRY(err);
	TRY(make_log_key(dir));
	return make_database(dir, &member);
}

/* The hosts asked for, then the loopback ones, then the machine's name, each once; what cannot stand in a certificate is an error only when
 * it was asked for. */
struct hosts {
	const char *v[CERT_HOSTS_MAX + 1];
	size_t n;
	char machine[HOST_SIZE];
};

static bool has_host(const struct hosts *h, const char *host)
{
	for (size_t i = 0; i < h->n; i++) {
		if (strcmp(h->v[i], host) == 0)
			return true;
	}
	return false;
}

static enum err add_host(struct hosts *h, const char *host)
{
	enum host_kind kind;
	TRY(host_parse(host, &kind));
	if (has_host(h, host))
		return ERR_OK;
	if (h->n == CERT_HOSTS_MAX)
		return err_set(ERR_LIMIT, "at most %d host names and addresses", CERT_HOSTS_MAX);
	h->v[h->n++] = host;
	return ERR_OK;
}

static enum err choose_hosts(const struct federation_plan *plan, struct hosts *h)
{
	static const char *const loopback[] = {"localhost", "127.0.0.1", "::1"};
	for (size_t i = 0; plan->hosts != NULL && plan->hosts[i] != NULL; i++)
		TRY(add_host(h, plan->hosts[i]));
	for (size_t i = 0; i < sizeof loopback / sizeof loopback[0]; i++)
		TRY(add_host(h, loopback[i]));
	if (gethostname(h->machine, sizeof h->machine - 1) == 0 && add_host(h, h->machine) != ERR_OK)
		return ERR_OK; /* a machine without a usable name is reached by another one */
	return ERR_OK;
}

enum err federation_create(const char *dir, const struct federation_plan *plan, int64_t now_ms)
{
	char path[PATH_SIZE];
	struct hosts hosts = {.n = 0};
	TRY(choose_hosts(plan, &hosts));
	struct settings s = {
		.federation = mem_str(plan->name != NULL ? plan->name : "hansa"),
		.listen = mem_str(plan->listen != NULL ? plan->listen : SETTINGS_LISTEN),
		.enrol_listen = mem_str(plan->enrol_listen != NULL ? plan->enrol_listen : SETTINGS_ENROL_LISTEN),
		.advertise = mem_str(hosts.v[0]),
	};
	enum err err = settings_check(&s);
	if (err == ERR_OK)
		err = claim(dir);
	if (err == ERR_OK)
		err = fill(dir, plan, hosts.v, &s, now_ms);
	if (err == ERR_OK)
		err = settings_write(path_join(path, dir, SETTINGS_FILE), &s);
	settings_free(&s);
	return err;
}

/* ---- opening one ---- */

static enum err read_parts(struct federation *f, int64_t now_ms)
{
	char path[PATH_SIZE];
	TRY(ca_open(f->dir, &f->ca));
	if (strcmp(ca_federation(f->ca), f->settings.federation) != 0)
		return err_set(ERR_CONFIG, "federation: the settings say %s, but the certificates are of %s",
			       f->settings.federation, ca_federation(f->ca));
	enum err err = credential_load(path_join(path, f->dir, "coordinator"), now_ms, &f->credential);
	return err == ERR_OK ? ERR_OK : err_add(err, "the coordinator's own credential");
}

static enum err open_parts(struct federation *f)
{
	char path[PATH_SIZE];
	TRY(db_open(path_join(path, f->dir, "hansa.db"), &f->db));
	TRY(store_open(f->dir, &f->store));
	return registry_open(f->db, &f->registry);
}

static enum err open_federation(const char *settings_path, bool whole, int64_t now_ms,
				struct federation *ret_federation)
{
	struct federation f = {.ca = NULL};
	const char *slash = strrchr(settings_path, '/');
	size_t n = slash != NULL ? (size_t)(slash - settings_path) : 1;
	if (n > PATH_SIZE / 2)
		return err_set(ERR_LIMIT, "%.100s...: the path is too long", settings_path);
	snprintf(f.dir, sizeof f.dir, "%.*s", (int)(n > 0 ? n : 1), slash != NULL ? settings_path : ".");
	TRY(settings_load(settings_path, &f.settings));
	enum err err = read_parts(&f, now_ms);
	if (err == ERR_OK && whole)
		err = open_parts(&f);
	if (err != ERR_OK) {
		char *text = mem_str(err_text());
		federation_close(&f);
		err_set(err, "%s", text);
		free(text);
		return err;
	}
	*ret_federation = f;
	return ERR_OK;
}

enum err federation_open(const char *settings_path, int64_t now_ms, struct federation *ret_federation)
{
	return open_federation(settings_path, true, now_ms, ret_federation);
}

enum err federation_read(const char *settings_path, int64_t now_ms, struct federation *ret_federation)
{
	return open_federation(settings_path, false, now_ms, ret_federation);
}

void federation_close(struct federation *f)
{
	registry_close(f->registry);
	store_close(f->store);
	db_close(f->db);
	credential_free(&f->credential);
	ca_close(f->ca);
	settings_free(&f->settings);
	*f = (struct federation){.ca = NULL};
}

enum err federation_chain(const struct federation *f, struct buf *ret_pem)
{
	struct buf chain;
	buf_init(&chain, PEM_MAX);
	enum err err = buf_append(&chain, f->credential.cert_pem.p, f->credential.cert_pem.n);
	if (err == ERR_OK)
		err = buf_append(&chain, f->credential.ca_pem.p, f->credential.ca_pem.n);
	if (err != ERR_OK) {
		buf_deinit(&chain);
		return err;
	}
	*ret_pem = chain;
	return ERR_OK;
}
