/*
 * An update from a plant: the first two bytes choose a norm limit and how the rest is cut; whatever the cut, the answer
 * is the same.
 */
#include "update/update.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char manifest_text[] = "{\"tensors\":["
				    "{\"name\":\"a.weight\",\"role\":\"trainable\",\"scale\":24,\"shape\":[3,5]},"
				    "{\"name\":\"b.weight\",\"role\":\"frozen\",\"scale\":0,\"shape\":[100]},"
				    "{\"name\":\"c.weight\",\"role\":\"trainable\",\"scale\":-104,\"shape\":[]},"
				    "{\"name\":\"d.weight\",\"role\":\"local\",\"scale\":0,\"shape\":[7]},"
				    "{\"name\":\"e.running_var\",\"role\":\"statistic\",\"scale\":30,\"shape\":[17]}],"
				    "\"version\":1}";

struct answer {
	enum err err;
	double norm;
	char *text; /* owned */
};

static struct answer check(const struct manifest *m, double norm_max, struct bytes update, struct rng *cut)
{
	struct update_check c;
	struct answer a = {.norm = -1};
	update_check_init(&c, m, norm_max);
	while (a.err == ERR_OK && update.n > 0) {
		size_t n = cut == NULL ? update.n : rng_below(cut, 20);
		n = n < update.n ? n : update.n;
		a.err = update_check_feed(&c, bytes_of(update.p, n));
		update = bytes_of(update.p + n, update.n - n);
	}
	if (a.err == ERR_OK)
		a.err = update_check_end(&c, &a.norm);
	a.text = mem_str(a.err == ERR_OK ? "" : err_text());
	ENSURE(a.err == ERR_OK || update_check_feed(&c, bytes_of("", 0)) == a.err);
	return a;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct manifest *m;
	struct rng cut;
	if (m == NULL)
		ENSURE(manifest_parse(bytes_str(manifest_text), &m) == ERR_OK);
	if (size < 2)
		return 0;
	double norm_max = data[0] < 128 ? 0 : data[0];
	rng_seed(&cut, data[1]);
	struct answer whole = check(m, norm_max, bytes_of(data + 2, size - 2), NULL);
	struct answer pieces = check(m, norm_max, bytes_of(data + 2, size - 2), &cut);
	ENSURE(whole.err == pieces.err && strcmp(whole.text, pieces.text) == 0);
	ENSURE(memcmp(&whole.norm, &pieces.norm, sizeof whole.norm) == 0);
	ENSURE(whole.err != ERR_OK ||
	       (size - 2 == manifest_update_bytes(m) && (norm_max == 0 || whole.norm <= norm_max)));
	free(whole.text);
	free(pieces.text);
	return 0;
}
