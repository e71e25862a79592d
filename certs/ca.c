/*
 * Invariants: cert.pem is written after key.pem, so a directory with a certificate is whole; the key in it is the
 * certificate's; no leaf outlives the CA.
 */
#include "certs/ca.h"

#include "base/clock.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

struct ca {
	struct key *key;   /* owned */
	struct cert *cert; /* owned */
	char federation[IDENTITY_PART_SIZE];
};

static const int64_t hour_ms = 3600 * INT64_C(1000);
static const int64_t day_ms = 24 * 3600 * INT64_C(1000);

/* Days of validity by role. */
static const struct lifetime_row {
	enum role role;
	int days;
} lifetimes[] = {
	{ROLE_PLANT, CA_PLANT_DAYS},  {ROLE_OPERATOR, CA_OPERATOR_DAYS},       {ROLE_AUDITOR, CA_OPERATOR_DAYS},
	{ROLE_LAB, CA_OPERATOR_DAYS}, {ROLE_COORDINATOR, CA_COORDINATOR_DAYS},
};

struct paths {
	char dir[PATH_SIZE], key[PATH_SIZE], cert[PATH_SIZE];
};

static void paths_of(const char *dir, struct paths *p)
{
	path_join(p->dir, dir, "ca");
	path_join(p->key, p->dir, "key.pem");
	path_join(p->cert, p->dir, "cert.pem");
}

enum err ca_create(const char *dir, const char *federation, int64_t now_ms)
{
	struct paths p;
	struct key *key = NULL;
	struct cert *cert = NULL;
	struct buf pem = {0};
	paths_of(dir, &p);
	if (file_exists(p.cert))
		return err_set(ERR_STATE, "%s: there is a CA already", p.dir);
	TRY(key_generate(KEY_P256, &key));
	enum err e = cert_make_ca(key, federation, now_ms - CA_BACKDATE_HOURS * hour_ms,
				  now_ms + CA_YEARS * 365 * day_ms, &cert);
	if (e == ERR_OK)
		e = cert_pem(cert, &pem);
	if (e == ERR_OK)
		e = dir_make(p.dir, 0700);
	if (e == ERR_OK)
		e = key_save(key, p.key);
	if (e == ERR_OK)
		e = file_replace(p.cert, buf_bytes(&pem), 0644);
	buf_deinit(&pem);
	cert_free(cert);
	key_free(key);
	return e;
}

enum err ca_open(const char *dir, struct ca **ret_ca)
{
	struct paths p;
	struct ca *ca = mem_new(sizeof *ca);
	paths_of(dir, &p);
	enum err e = cert_load(p.cert, &ca->cert);
	if (e == ERR_OK)
		e = key_load(p.key, &ca->key);
	if (e == ERR_OK && cert_ca_federation(ca->cert, ca->federation) != ERR_OK)
		e = err_add(ERR_CORRUPT, "%s", p.cert);
	if (e == ERR_OK) {
		struct digest ours = key_public_digest(ca->key), theirs = cert_key_digest(ca->cert);
		if (!digest_equal(&ours, &theirs))
			e = err_set(ERR_CORRUPT, "%s: key.pem and cert.pem do not belong together", p.dir);
	}
	if (e != ERR_OK) {
		ca_close(ca);
		return e;
	}
	*ret_ca = ca;
	return ERR_OK;
}

void ca_close(struct ca *ca)
{
	if (ca == NULL)
		return;
	key_free(ca->key);
	cert_free(ca->cert);
	free(ca);
}

const struct cert *ca_cert(const struct ca *ca)
{
	return ca->cert;
}

const char *ca_federation(const struct ca *ca)
{
	return ca->federation;
}

static int64_t lifetime_ms(enum role role)
{
	for (size_t i = 0; i < sizeof lifetimes / sizeof lifetimes[0]; i++) {
		if (lifetimes[i].role == role)
			return lifetimes[i].days * day_ms;
	}
	return 0;
}

enum err ca_issue(const struct ca *ca, const struct key *subject_key, const struct identity *id,
		  const char *const *hosts, int64_t now_ms, struct cert **ret_cert)
{
	char when[CLOCK_TEXT_SIZE];
	int64_t life = lifetime_ms(id->role), end = cert_not_after_ms(ca->cert);
	if (life == 0)
		return err_set(ERR_DENIED, "role %s gets no certificate", role_name(id->role));
	if (strcmp(id->federation, ca->federation) != 0)
		return err_set(ERR_DENIED, "this CA certifies federation %s, not %s", ca->federation, id->federation);
	if (now_ms < cert_not_before_ms(ca->cert))
		return err_set(ERR_STATE, "the CA is valid from %s on; is the clock right?",
			       clock_format(cert_not_before_ms(ca->cert), when));
	if (now_ms >= end)
		return err_set(ERR_STATE, "the CA expired on %s; make a new federation", clock_format(end, when));
	int64_t to = now_ms + life;
	return cert_issue(ca->cert, ca->key, subject_key, id, hosts, now_ms - CA_BACKDATE_HOURS * hour_ms,
			  to < end ? to : end, ret_cert);
}

enum err ca_sign_request(const struct ca *ca, struct bytes csr_pem, const struct identity *expected, int64_t now_ms,
			 struct cert **ret_cert)
{
	struct identity id;
	struct key *key = NULL;
	char asked[IDENTITY_TEXT_SIZE], allowed[IDENTITY_TEXT_SIZE];
	TRY(csr_parse(csr_pem, &id, &key));
	enum err e = ERR_OK;
	if (!identity_equal(&id, expected))
		e = err_set(ERR_DENIED, "the request is for %s, but only %s is allowed", identity_format(&id, asked),
			    identity_format(expected, allowed));
	else
		e = ca_issue(ca, key, &id, NULL, now_ms, ret_cert);
	key_free(key);
	return e;
}
