/*
 * Who somebody is: spiffe://FEDERATION/plant/NAME, /operator/NAME, /auditor/NAME, /lab/NAME, /coordinator.
 *
 * FEDERATION: 1 to 63 of [a-z0-9-.], starting and ending with a letter or digit. NAME: 1 to 63 of [a-z0-9-], likewise.
 * Comparison is by bytes; anything else does not parse, so there are no two spellings of one identity.
 */
#ifndef HANSA_CRYPTO_IDENTITY_H
#define HANSA_CRYPTO_IDENTITY_H

#include "base/err.h"

/* Bits, so that a method can allow several roles. ROLE_NOBODY is a peer without a certificate (enrolment port). */
enum role {
	ROLE_NONE = 0,
	ROLE_NOBODY = 1,
	ROLE_PLANT = 2,
	ROLE_OPERATOR = 4,
	ROLE_AUDITOR = 8,
	ROLE_LAB = 16,
	ROLE_COORDINATOR = 32
};

enum { IDENTITY_PART_SIZE = 64, IDENTITY_TEXT_SIZE = 160 };

struct identity {
	enum role role;
	char federation[IDENTITY_PART_SIZE];
	char name[IDENTITY_PART_SIZE]; /* "" for the coordinator */
};

/* ERR_MALFORMED with the rule that was broken. `name` is NULL or "" for the coordinator. */
MUST_CHECK enum err identity_make(enum role role, const char *federation, const char *name, struct identity *ret_id);
MUST_CHECK enum err identity_parse(const char *uri, size_t n, struct identity *ret_id);
const char *identity_format(const struct identity *id, char out[IDENTITY_TEXT_SIZE]);
bool identity_equal(const struct identity *a, const struct identity *b);
const char *role_name(enum role role); /* "plant", ... */
/* A role that can be invited: plant, operator, auditor, lab. */
MUST_CHECK enum err role_parse(const char *text, enum role *ret_role);

#endif
