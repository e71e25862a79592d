/*
 * Join codes. A code comes out of a mail or from a sheet, so every way of spoiling it (cut, altered, padded, wrapped)
 * must end in a clear message; the check at the end is against accidents, the CA's fingerprint is what protects.
 */
#include "certs/joincode.h"

#include "base/clock.h"
#include "crypto/address.h"
#include "crypto/random.h"

#include <string.h>

static const char prefix[] = "hansa1-";

enum {
	PREFIX_N = sizeof prefix - 1,
	VERSION = 1,
	EXPIRY_SIZE = 8,
	CHECK_SIZE = 4,
	RAW_MAX = (JOINCODE_TEXT_SIZE - 1 - PREFIX_N) * 3 / 4,
};

/* 9999-12-31T23:59:59Z: what fits into four digits of a year, and into int64_t milliseconds by far. */
static const uint64_t expiry_s_max = UINT64_C(253402300799);

/* Appending and taking with a bound; `ok` stays false after the first step over it. */
struct cursor {
	uint8_t *p;
	size_t n, at;
	bool ok;
};

static void put(struct cursor *c, const void *p, size_t n)
{
	c->ok = c->ok && n <= c->n - c->at;
	if (!c->ok)
		return;
	memcpy(c->p + c->at, p, n);
	c->at += n;
}

static void put_byte(struct cursor *c, size_t v)
{
	uint8_t b = (uint8_t)v;
	put(c, &b, 1);
}

static void take(struct cursor *c, void *p, size_t n)
{
	c->ok = c->ok && n <= c->n - c->at;
	if (!c->ok)
		return;
	memcpy(p, c->p + c->at, n);
	c->at += n;
}

static size_t take_byte(struct cursor *c)
{
	uint8_t b = 0;
	take(c, &b, 1);
	return b;
}

/* A text with its length before it, zero-terminated in `out`. */
static void take_text(struct cursor *c, char *out, size_t size, size_t *ret_n)
{
	size_t n = take_byte(c);
	c->ok = c->ok && n < size;
	if (!c->ok)
		return;
	take(c, out, n);
	out[n] = '\0';
	*ret_n = n;
}

static enum err spoilt(void)
{
	return err_set(ERR_MALFORMED,
		       "the join code is incomplete or altered; copy all of it, from %s to its last character, "
		       "or ask the operator for a new one (hansactl invite)",
		       prefix);
}

/* What must hold of a code on either side. */
static enum err check_fields(const struct joincode *code)
{
	enum role role;
	struct identity id;
	struct address address;
	if (role_parse(role_name(code->id.role), &role) != ERR_OK)
		return err_set(ERR_MALFORMED, "nobody joins as %s", role_name(code->id.role));
	TRY(identity_make(code->id.role, code->id.federation, code->id.name, &id));
	if (code->expires_ms < 0 || (uint64_t)code->expires_ms / 1000 > expiry_s_max)
		return err_set(ERR_MALFORMED, "the expiry of a join code is between the years 1970 and 9999");
	if (memchr(code->address, 0, sizeof code->address) == NULL)
		return err_set(ERR_MALFORMED, "the address of a join code has at most %d characters",
			       JOINCODE_ADDRESS_SIZE - 1);
	return address_parse(code->address, &address);
}

static size_t write_raw(const struct joincode *code, uint8_t raw[RAW_MAX])
{
	char uri[IDENTITY_TEXT_SIZE];
	uint8_t expiry[EXPIRY_SIZE];
	struct cursor c = {.p = raw, .n = RAW_MAX, .ok = true};
	uint64_t s = (uint64_t)code->expires_ms / 1000;
	for (size_t i = 0; i < EXPIRY_SIZE; i++)
		expiry[i] = (uint8_t)(s >> (56 - 8 * i));
	identity_format(&code->id, uri);
	put_byte(&c, VERSION);
	put(&c, expiry, sizeof expiry);
	put(&c, code->ca_fingerprint.b, DIGEST_SIZE);
	put(&c, code->secret, JOINCODE_SECRET_SIZE);
	put_byte(&c, strlen(uri));
	put(&c, uri, strlen(uri));
	put_byte(&c, strlen(code->address));
	put(&c, code->address, strlen(code->address));
	struct digest d = digest_of(bytes_of(raw, c.at));
	put(&c, d.b, CHECK_SIZE);
	return c.ok ? c.at : 0;
}

enum err joincode_format(const struct joincode *code, char out[JOINCODE_TEXT_SIZE])
{
	uint8_t raw[RAW_MAX];
	TRY(check_fields(code));
	size_t n = write_raw(code, raw);
	if (n == 0)
		return err_set(ERR_LIMIT,
			       "a join code has at most %d characters; use a shorter name, federation or address",
			       JOINCODE_TEXT_SIZE - 1);
	memcpy(out, prefix, PREFIX_N);
	enum err e = base64url_encode(raw, n, out + PREFIX_N, JOINCODE_TEXT_SIZE - PREFIX_N);
	secret_wipe(raw, sizeof raw);
	return e;
}

static enum err read_raw(uint8_t *raw, size_t n, struct joincode *code)
{
	char uri[IDENTITY_TEXT_SIZE];
	uint8_t expiry[EXPIRY_SIZE];
	size_t uri_n = 0, address_n = 0;
	uint64_t s = 0;
	struct cursor c = {.p = raw, .n = n, .ok = true};
	(void)take_byte(&c); /* the version, looked at before */
	take(&c, expiry, sizeof expiry);
	take(&c, code->ca_fingerprint.b, DIGEST_SIZE);
	take(&c, code->secret, JOINCODE_SECRET_SIZE);
	take_text(&c, uri, sizeof uri, &uri_n);
	take_text(&c, code->address, sizeof code->address, &address_n);
	if (!c.ok || c.at != n || strlen(code->address) != address_n)
		return spoilt();
	for (size_t i = 0; i < EXPIRY_SIZE; i++)
		s = s << 8 | expiry[i];
	if (s > expiry_s_max)
		return err_set(ERR_MALFORMED, "the join code's expiry is not a date");
	code->expires_ms = (int64_t)s * 1000;
	TRY(identity_parse(uri, uri_n, &code->id));
	return check_fields(code);
}

enum err joincode_parse(const char *text, struct joincode *ret_code)
{
	uint8_t raw[RAW_MAX];
	struct joincode code = {0};
	size_t n = 0;
	size_t len = strnlen(text, JOINCODE_TEXT_SIZE);
	if (strncmp(text, prefix, PREFIX_N) != 0)
		return err_set(ERR_MALFORMED, "a join code begins with %s; copy all of it from what the operator sent",
			       prefix);
	if (len == JOINCODE_TEXT_SIZE)
		return err_set(ERR_MALFORMED, "a join code has at most %d characters; paste the code alone",
			       JOINCODE_TEXT_SIZE - 1);
	enum err e = ERR_OK;
	if (base64url_decode(text + PREFIX_N, len - PREFIX_N, raw, sizeof raw, &n) != ERR_OK || n <= CHECK_SIZE) {
		e = spoilt();
		goto out;
	}
	n -= CHECK_SIZE;
	struct digest d = digest_of(bytes_of(raw, n));
	if (memcmp(d.b, raw + n, CHECK_SIZE) != 0)
		e = spoilt();
	else if (raw[0] != VERSION)
		e = err_set(ERR_MALFORMED, "this join code is of version %d; install a newer Hansa here", raw[0]);
	else
		e = read_raw(raw, n, &code);
	if (e == ERR_OK)
		*ret_code = code;
out:
	secret_wipe(raw, sizeof raw);
	secret_wipe(code.secret, sizeof code.secret);
	return e;
}

enum err joincode_check(const struct joincode *code, int64_t now_ms)
{
	char when[CLOCK_TEXT_SIZE];
	if (now_ms < code->expires_ms)
		return ERR_OK;
	return err_set(ERR_STALE, "the join code expired on %s; ask the operator for a new one (hansactl invite %s)",
		       clock_format(code->expires_ms, when), code->id.name);
}
