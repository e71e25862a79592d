/*
 * A join code: all that a plant needs to enrol, in one string that can be pasted or read from a sheet.
 *
 *	"hansa1-" base64url( version 1 | expiry u64 (Unix seconds) | CA fingerprint 32 | secret 16 |
 *	                     identity length u8, identity URI | address length u8, address | check 4 )
 * Numbers are big-endian; check is the head of SHA-256 over all before it, against typing errors. A code has at most
 * 512 characters. The secret is good once, until the expiry; the coordinator stores only its SHA-256.
 */
#ifndef HANSA_CERTS_JOINCODE_H
#define HANSA_CERTS_JOINCODE_H

#include "crypto/digest.h"
#include "crypto/identity.h"

enum { JOINCODE_SECRET_SIZE = 16, JOINCODE_TEXT_SIZE = 513, JOINCODE_ADDRESS_SIZE = 200 };

struct joincode {
	struct identity id;                  /* whom the code is for */
	char address[JOINCODE_ADDRESS_SIZE]; /* HOST:PORT of the enrolment port */
	struct digest ca_fingerprint;
	uint8_t secret[JOINCODE_SECRET_SIZE];
	int64_t expires_ms;
};

/* Rounds the expiry down to the second. ERR_MALFORMED: a field that could not be read back; ERR_LIMIT: too long. */
MUST_CHECK enum err joincode_format(const struct joincode *code, char out[JOINCODE_TEXT_SIZE]);
MUST_CHECK enum err joincode_parse(const char *text, struct joincode *ret_code); /* ERR_MALFORMED with what to do */
MUST_CHECK enum err joincode_check(const struct joincode *code, int64_t now_ms); /* ERR_STALE when it has expired */

#endif
