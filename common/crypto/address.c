#include "crypto/address.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_MAX = 63 };

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
}

/* RFC 1123 names, with underscores as container networks use them. */
static bool is_dns_name(const char *s)
{
	bool numeric = true;
	const char *label = s;
	for (const char *p = s;; p++) {
		if (is_name_char(*p)) {
			numeric = numeric && is_digit(*p);
			continue;
		}
		if (*p != '.' && *p != '\0')
			return false;
		if (p == label || p - label > LABEL_MAX || *label == '-' || p[-1] == '-')
			return false;
		/* "10.0.0" is a spoilt IP address, not a name (it would reach the resolver as one). */
		if (*p == '\0')
			return !numeric;
		label = p + 1;
		numeric = true;
	}
}

enum err host_parse(const char *host, enum host_kind *ret_kind)
{
	struct in6_addr scratch; /* room for either family */
	if (strlen(host) >= ADDRESS_HOST_SIZE)
		return err_set(ERR_MALFORMED, "host name is longer than %d characters", ADDRESS_HOST_SIZE - 1);
	if (inet_pton(AF_INET, host, &scratch) == 1)
		*ret_kind = HOST_IP4;
	else if (inet_pton(AF_INET6, host, &scratch) == 1)
		*ret_kind = HOST_IP6;
	else if (is_dns_name(host))
		*ret_kind = HOST_DNS;
	else
		return err_set(ERR_MALFORMED, "\"%s\" is neither a host name nor an IP address", host);
	return ERR_OK;
}

static bool port_parse(const char *s, uint16_t *ret_port)
{
	size_t n = strlen(s);
	if (n == 0 || n > 5 || s[0] == '0' || strspn(s, "0123456789") != n)
		return false;
	long v = strtol(s, NULL, 10);
	if (v > UINT16_MAX)
		return false;
	*ret_port = (uint16_t)v;
	return true;
}

enum err address_parse(const char *text, struct address *ret_address)
{
	struct address a = {0};
	const char *colon = strrchr(text, ':');
	bool bracketed = text[0] == '[';
	if (colon == NULL || !port_parse(colon + 1, &a.port))
		return err_set(ERR_MALFORMED, "\"%.300s\" is not HOST:PORT with a port from 1 to 65535", text);
	const char *host = bracketed ? text + 1 : text;
	const char *end = bracketed ? colon - 1 : colon;
	if (end < host || (bracketed && *end != ']'))
		return err_set(ERR_MALFORMED, "\"%.300s\" is not [IPV6]:PORT", text);
	size_t n = (size_t)(end - host);
	if (n >= sizeof a.host)
		return err_set(ERR_MALFORMED, "host name is longer than %zu characters", sizeof a.host - 1);
	memcpy(a.host, host, n);
	TRY(host_parse(a.host, &a.kind));
	if (bracketed != (a.kind == HOST_IP6))
		return err_set(ERR_MALFORMED,
			       "\"%.300s\": brackets belong around IPv6 addresses, and only there: [::1]:8443", text);
	*ret_address = a;
	return ERR_OK;
}
