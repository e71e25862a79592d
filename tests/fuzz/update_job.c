/*
 * A job's configuration from a coordinator, in canonical form. What is read and passes the check is written back to an
 * equal text.
 */
#include "update/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf canonical(const struct job_config *c)
{
	struct buf text;
	buf_init(&text, 1 << 20);
	ENSURE(config_canonical(job_wire_rows, c, &text) == ERR_OK);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct job_config c = {0}, again = {0};
	if (config_from_canonical(job_wire_rows, bytes_of(data, size), &c) != ERR_OK)
		return 0;
	if (job_check(&c) == ERR_OK) {
		struct buf text = canonical(&c);
		ENSURE(config_from_canonical(job_wire_rows, buf_bytes(&text), &again) == ERR_OK);
		struct buf text_again = canonical(&again);
		struct digest a = job_hash(buf_bytes(&text)), b = job_hash(buf_bytes(&text_again));
		ENSURE(digest_equal(&a, &b));
		buf_deinit(&text);
		buf_deinit(&text_again);
		config_free(job_wire_rows, &again);
	}
	config_free(job_wire_rows, &c);
	return 0;
}
