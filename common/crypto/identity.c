#include "crypto/identity.h"

#include <stdio.h>
#include <string.h>

static const struct role_row {
	enum role role;
	const char *name;
	bool invited; /* gets its certificate by a join code */
} roles[] = {
	{ROLE_NONE, "none", false},
	{ROLE_NOBODY, "nobody", false},
	{ROLE_PLANT, "plant", true},
	{ROLE_OPERATOR, "operator", true},
	{ROLE_AUDITOR, "auditor", true},
	{ROLE_LAB, "lab", true},
	{ROLE_COORDINATOR, "coordinator", false},
};

enum { ROLE_ROWS = sizeof roles / sizeof roles[0] };

static const char scheme[] = "spiffe://";

const char *role_name(enum role role)
{
	for (size_t i = 0; i < ROLE_ROWS; i++) {
		if (roles[i].role == role)
			return roles[i].name;
	}
	return "unknown";
}

enum err role_parse(const char *text, enum role *ret_role)
{
	for (size_t i = 0; i < ROLE_ROWS; i++) {
		if (roles[i].invited && strcmp(roles[i].name, text) == 0) {
			*ret_role = roles[i].role;
			return ERR_OK;
		}
	}
	return err_set(ERR_MALFORMED, "\"%.64s\" is not a role: plant, operator, auditor or lab", text);
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* 1 to 63 of [a-z0-9-], and '.' when allowed, letter or digit at both ends. */
static bool is_part(const char *s, size_t n, bool dots)
{
	if (n == 0 || n >= IDENTITY_PART_SIZE || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_alnum(s[i]) && s[i] != '-' && !(dots && s[i] == '.'))
			return false;
	}
	return true;
}

static enum err make(enum role role, const char *federation, size_t federation_n, const char *name, size_t name_n,
		     struct identity *ret_id)
{
	struct identity id = {.role = role};
	if (!is_part(federation, federation_n, true))
		return err_set(ERR_MALFORMED, "a federation is named with 1 to 63 of a-z, 0-9, '-' and '.', "
					      "beginning and ending with a letter or digit");
	if (role != ROLE_COORDINATOR && !is_part(name, name_n, false))
		return err_set(
			ERR_MALFORMED,
			"a %s is named with 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
			role_name(role));
	if (role == ROLE_COORDINATOR && name_n != 0)
		return err_set(ERR_MALFORMED, "the coordinator has no name of its own");
	memcpy(id.federation, federation, federation_n);
	if (name_n > 0)
		memcpy(id.name, name, name_n);
	*ret_id = id;
	return ERR_OK;
}

enum err identity_make(enum role role, const char *federation, const char *name, struct identity *ret_id)
{
	bool known = false;
	for (size_t i = 0; i < ROLE_ROWS; i++)
		known = known || (roles[i].role == role && (roles[i].invited || role == ROLE_COORDINATOR));
	if (!known)
		return err_set(ERR_MALFORMED, "role %s has no identity", role_name(role));
	if (name == NULL)
		name = "";
	return make(role, federation, strlen(federation), name, strlen(name), ret_id);
}

enum err identity_parse(const char *uri, size_t n, struct identity *ret_id)
{
	size_t scheme_n = sizeof scheme - 1;
	if (n >= IDENTITY_TEXT_SIZE)
		return err_set(ERR_MALFORMED, "an identity has at most %d characters", IDENTITY_TEXT_SIZE - 1);
	if (n < scheme_n || memcmp(uri, scheme, scheme_n) != 0)
		return err_set(ERR_MALFORMED, "an identity begins with %s", scheme);
	const char *end = uri + n;
	const char *federation = uri + scheme_n;
	const char *slash = memchr(federation, '/', (size_t)(end - federation));
	if (slash == NULL)
		return err_set(ERR_MALFORMED, "an identity has the form %sFEDERATION/ROLE/NAME", scheme);
	size_t federation_n = (size_t)(slash - federation);
	const char *kind = slash + 1;
	slash = memchr(kind, '/', (size_t)(end - kind));
	const char *kind_end = slash == NULL ? end : slash;
	for (size_t i = 0; i < ROLE_ROWS; i++) {
		size_t len = strlen(roles[i].name);
		if (len != (size_t)(kind_end - kind) || memcmp(kind, roles[i].name, len) != 0)
			continue;
		if (roles[i].role == ROLE_COORDINATOR && slash == NULL)
			return make(ROLE_COORDINATOR, federation, federation_n, "", 0, ret_id);
		if (roles[i].invited && slash != NULL)
			return make(roles[i].role, federation, federation_n, slash + 1, (size_t)(end - slash - 1),
				    ret_id);
	}
	return err_set(ERR_MALFORMED,
		       "an identity ends with /plant/NAME, /operator/NAME, /auditor/NAME, /lab/NAME or /coordinator");
}

const char *identity_format(const struct identity *id, char out[IDENTITY_TEXT_SIZE])
{
	bool named = id->role != ROLE_COORDINATOR;
	snprintf(out, IDENTITY_TEXT_SIZE, "%s%s/%s%s%s", scheme, id->federation, role_name(id->role), named ? "/" : "",
		 named ? id->name : "");
	return out;
}

bool identity_equal(const struct identity *a, const struct identity *b)
{
	return a->role == b->role && strcmp(a->federation, b->federation) == 0 && strcmp(a->name, b->name) == 0;
}
