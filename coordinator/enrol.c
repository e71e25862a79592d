/*
 * One mutex for all of it: the CA serves one thread at a time, and what is decided about a name must still hold when it is written. It is
 * held across a signature and a transaction; enrolments are rare.
 *
 * The secret itself is never stored or compared: its SHA-256 is looked up, so the time of the look-up says nothing about the secret.
 */
#include "coordinator/enrol.h"

#include "base/log.h"
#include "certs/joincode.h"
#include "coordinator/trouble.h"
#include "crypto/random.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct enrol {
	struct federation *federation;
	pthread_mutex_t lock;
	char main[WIRE_ADDRESS_SIZE], enrolment[WIRE_ADDRESS_SIZE]; /* "": not known, or closed */
	/* Token bucket of refusals that are looked at. */
	int64_t filled_ms;
	int64_t tokens_milli; /* thousandths; gains ENROL_FAILURES_PER_S a millisecond */
};

struct enrol *enrol_new(struct federation *f)
{
	struct enrol *e = mem_new(sizeof *e);
	e->federation = f;
	e->tokens_milli = ENROL_FAILURES_PER_S * 1000;
	pthread_mutex_init(&e->lock, NULL);
	return e;
}

void enrol_free(struct enrol *e)
{
	if (e == NULL)
		return;
	pthread_mutex_destroy(&e->lock);
	free(e);
}

void enrol_set_addresses(struct enrol *e, const char *main, const char *enrolment)
{
	pthread_mutex_lock(&e->lock);
	snprintf(e->main, sizeof e->main, "%s", main);
	snprintf(e->enrolment, sizeof e->enrolment, "%s", enrolment != NULL ? enrolment : "");
	pthread_mutex_unlock(&e->lock);
}

/* ---- inviting ---- */

static enum err check_invitable(struct enrol *e, enum role role, const char *name, uint64_t valid_ms)
{
	if (valid_ms < (uint64_t)ENROL_VALID_MIN_MS || valid_ms > (uint64_t)ENROL_VALID_MAX_MS)
		return err_set(ERR_LIMIT, "an invitation is valid for 1 minute to 30 days");
	if (e->enrolment[0] == '\0')
		return err_set(ERR_STATE,
			       "enrolment is closed (enrol_listen: off in %s); nobody could use an invitation",
			       SETTINGS_FILE);
	if (registry_is_enrolled(e->federation->registry, role, name))
		return err_set(ERR_STATE,
			       "%s %s is enrolled; to give it a new key, revoke it first: hansactl revoke %s%s%s",
			       role_name(role), name, name, role == ROLE_PLANT ? "" : " --role ",
			       role == ROLE_PLANT ? "" : role_name(role));
	return ERR_OK;
}

static enum err invite(struct enrol *e, enum role role, const char *name, uint64_t valid_ms, int64_t now_ms,
		       struct wire_invite_reply *out)
{
	struct joincode code = {.expires_ms = now_ms + (int64_t)valid_ms};
	struct invite row = {.role = role, .created_ms = now_ms, .expires_ms = code.expires_ms};
	char text[JOINCODE_TEXT_SIZE];
	TRY(identity_make(role, e->federation->settings.federation, name, &code.id));
	TRY(check_invitable(e, role, name, valid_ms));
	snprintf(code.address, sizeof code.address, "%s", e->enrolment);
	snprintf(row.name, sizeof row.name, "%s", name);
	code.ca_fingerprint = cert_fingerprint(ca_cert(e->federation->ca));
	random_bytes(code.secret, sizeof code.secret);
	row.secret = digest_of(bytes_of(code.secret, sizeof code.secret));
	enum err err = joincode_format(&code, text);
	if (err == ERR_OK)
		err = db_invite_put(e->federation->db, &row);
	if (err == ERR_OK) {
		*out = (struct wire_invite_reply){.expires_ms = (uint64_t)code.expires_ms};
		snprintf(out->code, sizeof out->code, "%s", text);
		log_info("enrol", "invited %s %s", role_name(role), name);
	}
	secret_wipe(&code, sizeof code);
	secret_wipe(text, sizeof text);
	return err;
}

enum err enrol_invite(struct enrol *e, enum role role, const char *name, uint64_t valid_ms, int64_t now_ms,
		      struct wire_invite_reply *ret_reply)
{
	pthread_mutex_lock(&e->lock);
	enum err err =
		invite(e, role, name, valid_ms != 0 ? valid_ms : (uint64_t)ENROL_VALID_DEFAULT_MS, now_ms, ret_reply);
	pthread_mutex_unlock(&e->lock);
	return err;
}

/* ---- redeeming ---- */

static bool take_token(struct enrol *e, int64_t now_ms)
{
	int64_t full = ENROL_FAILURES_PER_S * 1000;
	int64_t gained = now_ms > e->filled_ms ? (now_ms - e->filled_ms) * ENROL_FAILURES_PER_S
					       : 0; /* a clock may be set back */
	e->filled_ms = now_ms;
	e->tokens_milli = e->tokens_milli + gained < full ? e->tokens_milli + gained : full;
	if (e->tokens_milli < 1000)
		return false;
	e->tokens_milli -= 1000;
	return true;
}

static enum err refuse(const char *from, const char *reason)
{
	log_warn("enrol", "refused %s: %s", from, reason);
	return err_set(ERR_DENIED, ENROL_REFUSED);
}

static enum err give(struct enrol *e, struct bytes certificate, struct wire_enroll_reply *out)
{
	struct wire_enroll_reply reply = {.address = ""};
	buf_init(&reply.certificate, WIRE_PEM_MAX);
	buf_init(&reply.ca, WIRE_PEM_MAX);
	snprintf(reply.address, sizeof reply.address, "%s", e->main);
	enum err err = buf_append(&reply.certificate, certificate.p, certificate.n);
	if (err == ERR_OK)
		err = buf_append(&reply.ca, e->federation->credential.ca_pem.p, e->federation->credential.ca_pem.n);
	if (err != ERR_OK) {
		wire_enroll_reply_free(&reply);
		return err;
	}
	*out = reply;
	return ERR_OK;
}

static enum err certify(struct enrol *e, const struct invite *i, const struct identity *id, const struct digest *key,
			struct bytes csr, const char *from, int64_t now_ms, struct wire_enroll_reply *out)
{
	struct cert *cert = NULL;
	struct buf pem = {0};
	struct member m = {.role = i->role, .key = *key, .enrolled_ms = now_ms};
	snprintf(m.name, sizeof m.name, "%s", i->name);
	enum err err = ca_sign_request(e->federation->ca, csr, id, now_ms, &cert);
	if (err == ERR_DENIED)
		return refuse(from, err_text()); /* a kind of key that is not certified */
	TRY(err);
	m.expires_ms = cert_not_after_ms(cert);
	err = cert_pem(cert, &pem);
	if (err == ERR_OK)
		err = db_invite_use(e->federation->db, &i->secret, &m, buf_bytes(&pem));
	if (err == ERR_OK)
		err = registry_reload(e->federation->registry);
	if (err == ERR_OK)
		err = give(e, buf_bytes(&pem), out);
	cert_free(cert);
	buf_deinit(&pem);
	return err;
}

static enum err redeem_known(struct enrol *e, const struct invite *i, struct bytes csr, const char *from,
			     int64_t now_ms, struct wire_enroll_reply *out)
{
	struct identity id, asked;
	struct key *key = NULL;
	char who[IDENTITY_TEXT_SIZE];
	TRY(identity_make(i->role, e->federation->settings.federation, i->name, &id));
	identity_format(&id, who);
	if (now_ms >= i->expires_ms)
		return refuse(from, "the invitation has expired");
	if (csr_parse(csr, &asked, &key) != ERR_OK)
		return refuse(from, err_text());
	struct digest pinned = key_public_digest(key);
	key_free(key);
	if (!identity_equal(&asked, &id))
		return refuse(from, "the request is for another name than the invitation");
	if (i->used_ms == 0) {
		TRY(certify(e, i, &id, &pinned, csr, from, now_ms, out));
		log_info("enrol", "enrolled %s from %s", who, from);
		return ERR_OK;
	}
	if (!digest_equal(&pinned, &i->key))
		return refuse(from, "the invitation was used by another key");
	/* The first answer may have failed between the disk and the roster. */
	if (!registry_is_enrolled(e->federation->registry, i->role, i->name))
		TRY(registry_reload(e->federation->registry));
	log_info("enrol", "answered %s from %s once more", who, from);
	return give(e, buf_bytes(&i->certificate), out);
}

static enum err redeem(struct enrol *e, const struct wire_enroll_request *request, const char *from, int64_t now_ms,
		       struct wire_enroll_reply *out)
{
	struct invite i;
	struct digest secret = digest_of(bytes_of(request->secret, sizeof request->secret));
	if (e->main[0] == '\0')
		return err_set(ERR_UNAVAILABLE, "the coordinator is starting; try again");
	enum err err = db_invite_get(e->federation->db, &secret, &i);
	if (err == ERR_NOT_FOUND) {
		if (!take_token(e, now_ms))
			return err_set(ERR_LIMIT, "too many enrolments are failing; try again later");
		return refuse(from, "unknown invitation");
	}
	TRY(err);
	err = redeem_known(e, &i, request->csr, from, now_ms, out);
	invite_deinit(&i);
	return err;
}

enum err enrol_redeem(struct enrol *e, const struct wire_enroll_request *request, const char *from, int64_t now_ms,
		      struct wire_enroll_reply *ret_reply)
{
	pthread_mutex_lock(&e->lock);
	enum err err = redeem(e, request, from, now_ms, ret_reply);
	pthread_mutex_unlock(&e->lock);
	return err;
}

/* ---- revoking ---- */

static enum err check_not_last(struct enrol *e, enum role role, const char *name)
{
	struct member *members;
	size_t n, others = 0;
	if (role != ROLE_OPERATOR || !registry_is_enrolled(e->federation->registry, role, name))
		return ERR_OK;
	TRY(db_member_list(e->federation->db, &members, &n));
	for (size_t i = 0; i < n; i++)
		others += members[i].role == ROLE_OPERATOR && members[i].state == MEMBER_ENROLLED &&
			  strcmp(members[i].name, name) != 0;
	free(members);
	return others > 0 ? ERR_OK : err_set(ERR_STATE, "%s is the last operator; enrol another one first", name);
}

/* In memory first, which cannot fail: who is revoked is out, even when the disk does not take it. */
static enum err revoke(struct enrol *e, enum role role, const char *name, int64_t now_ms)
{
	TRY(check_not_last(e, role, name));
	registry_revoke(e->federation->registry, role, name);
	enum err err = db_member_revoke(e->federation->db, role, name, now_ms);
	if (err != ERR_OK && err != ERR_NOT_FOUND)
		return trouble_hide(err, "writing a revocation", ENROL_UNWRITTEN);
	char *text = mem_str(err_text());
	if (registry_reload(e->federation->registry) != ERR_OK)
		log_warn("enrol", "reading the roster: %s", err_text());
	if (err != ERR_OK)
		err_set(err, "%s", text);
	free(text);
	return err;
}

enum err enrol_revoke(struct enrol *e, enum role role, const char *name, int64_t now_ms)
{
	pthread_mutex_lock(&e->lock);
	enum err err = revoke(e, role, name, now_ms);
	pthread_mutex_unlock(&e->lock);
	if (err == ERR_OK)
		log_info("enrol", "revoked %s %s", role_name(role), name);
	return err;
}
