/*
 * A safetensors file made by hand, for the tests of its reader.
 */
#ifndef HANSA_TEST_ML_SAFETENSORS_FILE_H
#define HANSA_TEST_ML_SAFETENSORS_FILE_H

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A file of this header, and `n` bytes of data that count up; the caller frees. */
static inline struct buf file_of(const char *header, size_t n)
{
	struct buf b;
	uint64_t length = strlen(header);
	uint8_t head[8];
	buf_init(&b, 1 << 20);
	for (unsigned i = 0; i < 8; i++)
		head[i] = (uint8_t)(length >> (8 * i));
	assert_int_equal(buf_append(&b, head, 8), ERR_OK);
	assert_int_equal(buf_append(&b, header, length), ERR_OK);
	for (size_t i = 0; i < n; i++) {
		uint8_t v = (uint8_t)i;
		assert_int_equal(buf_append(&b, &v, 1), ERR_OK);
	}
	return b;
}

#endif
