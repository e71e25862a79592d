/*
 * HOST:PORT as it stands in configurations, credentials and join codes; HOST is a DNS name, an IPv4 address or an IPv6
 * address in brackets. Only what can also stand in a certificate is accepted, so that a typing error is found before
 * anything is signed.
 */
#ifndef HANSA_CRYPTO_ADDRESS_H
#define HANSA_CRYPTO_ADDRESS_H

#include "base/err.h"

#include <stdint.h>

enum host_kind { HOST_DNS, HOST_IP4, HOST_IP6 };

enum { ADDRESS_HOST_SIZE = 254 };

struct address {
	char host[ADDRESS_HOST_SIZE]; /* without brackets */
	enum host_kind kind;
	uint16_t port; /* 1 to 65535 */
};

MUST_CHECK enum err address_parse(const char *text, struct address *ret_address); /* ERR_MALFORMED */

/* What a bare host is; ERR_MALFORMED when it is none. Wildcards, a final dot and a numeric last label are refused. */
MUST_CHECK enum err host_parse(const char *host, enum host_kind *ret_kind);

#endif
