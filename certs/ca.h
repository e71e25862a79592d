/*
 * The federation's built-in certificate authority: a P-256 key and a self-signed certificate in a directory.
 *
 *	DIR/ca/key.pem (0600)  DIR/ca/cert.pem
 *
 * It issues short-lived leaves, each with exactly one identity, back-dated by 24 h so that a plant's slow clock does no
 * harm. thread: one at a time.
 */
#ifndef HANSA_CERTS_CA_H
#define HANSA_CERTS_CA_H

#include "crypto/cert.h"

enum { CA_YEARS = 10, CA_BACKDATE_HOURS = 24, CA_PLANT_DAYS = 90, CA_COORDINATOR_DAYS = 365, CA_OPERATOR_DAYS = 365 };

struct ca;

/* ERR_STATE when there is one. */
MUST_CHECK enum err ca_create(const char *dir, const char *federation, int64_t now_ms);
MUST_CHECK enum err ca_open(const char *dir, struct ca **ret_ca);
void ca_close(struct ca *ca);
const struct cert *ca_cert(const struct ca *ca);
const char *ca_federation(const struct ca *ca);

/*
 * Lifetime by role, never beyond the CA's own. ERR_DENIED: `id` is of another federation, or of a role without
 * certificates. ERR_STATE: the CA is not valid now.
 */
MUST_CHECK enum err ca_issue(const struct ca *ca, const struct key *subject_key, const struct identity *id,
			     const char *const *hosts, int64_t now_ms, struct cert **ret_cert);
/* The request's identity must be `expected` (ERR_DENIED); other errors as csr_parse() and ca_issue(). */
MUST_CHECK enum err ca_sign_request(const struct ca *ca, struct bytes csr_pem, const struct identity *expected,
				    int64_t now_ms, struct cert **ret_cert);

#endif
