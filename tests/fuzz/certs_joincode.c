/*
 * Join codes from mails and sheets. The check at the end stops nearly every mutation of a text, so an input that does
 * not begin with the letters of a code is taken for what is inside one, and sealed here.
 */
#include "certs/joincode.h"
#include "crypto/random.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHECK_SIZE = 4, RAW_MAX = 600, TEXT_ROOM = 1024 };

static const char prefix[] = "hansa1-";

static void try_text(const char *text)
{
	struct joincode code, again;
	char formatted[JOINCODE_TEXT_SIZE];
	if (joincode_parse(text, &code) != ERR_OK)
		return;
	/* What parses is spelt in one way. */
	ENSURE(joincode_format(&code, formatted) == ERR_OK);
	ENSURE(strcmp(formatted, text) == 0);
	ENSURE(joincode_parse(formatted, &again) == ERR_OK);
	ENSURE(identity_equal(&code.id, &again.id) && code.expires_ms == again.expires_ms);
	ENSURE(joincode_check(&code, code.expires_ms) == ERR_STALE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size >= sizeof prefix - 1 && memcmp(data, prefix, sizeof prefix - 1) == 0) {
		char *text = mem_new(size + 1);
		memcpy(text, data, size);
		try_text(text);
		free(text);
		return 0;
	}
	uint8_t raw[RAW_MAX + CHECK_SIZE];
	char text[TEXT_ROOM];
	size_t n = size < RAW_MAX ? size : RAW_MAX;
	if (n > 0)
		memcpy(raw, data, n);
	struct digest d = digest_of(bytes_of(raw, n));
	memcpy(raw + n, d.b, CHECK_SIZE);
	strcpy(text, prefix);
	ENSURE(base64url_encode(raw, n + CHECK_SIZE, text + sizeof prefix - 1, sizeof text - sizeof prefix + 1) ==
	       ERR_OK);
	try_text(text);
	return 0;
}
