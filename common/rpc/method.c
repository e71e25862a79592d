#include "rpc/method.h"

#include "rpc/wire.h"

#include <string.h>

enum {
	SMALL = 4 << 10,                     /* a few numbers, names and digests */
	PART = WIRE_CHUNK_SIZE + (16 << 10), /* a chunk, or a head, with room for fields of later versions */
	LARGE = (2 << 20) - (16 << 10),      /* within what gRPC is told to accept */
	SECOND = 1000,
	MINUTE = 60 * SECOND,
};

/* A waiting call is answered "nothing yet" by the coordinator well before its deadline. */
const struct method methods[METHOD_COUNT] = {
	[METHOD_ENROLL] = {"/hansa.v1.Enrolment/Enroll", METHOD_UNARY, ROLE_NOBODY, WIRE_CSR_MAX + SMALL,
			   2 * WIRE_PEM_MAX + SMALL, 30 * SECOND},

	[METHOD_NEXT_TASK] = {"/hansa.v1.Plant/NextTask", METHOD_PARKED, ROLE_PLANT, SMALL,
			      WIRE_CONFIG_MAX + WIRE_MANIFEST_MAX + WIRE_INLINE_MAX + SMALL, 2 * MINUTE},
	[METHOD_FETCH] = {"/hansa.v1.Plant/Fetch", METHOD_DOWNLOAD, ROLE_PLANT | ROLE_OPERATOR | ROLE_LAB, SMALL, PART,
			  60 * MINUTE},
	[METHOD_UPLOAD_UPDATE] = {"/hansa.v1.Plant/Upload", METHOD_UPLOAD, ROLE_PLANT, PART, SMALL, 60 * MINUTE},
	[METHOD_UPLOAD_OFFSET] = {"/hansa.v1.Plant/UploadOffset", METHOD_UNARY, ROLE_PLANT, SMALL, SMALL, 30 * SECOND},
	[METHOD_REPORT] = {"/hansa.v1.Plant/Report", METHOD_UNARY, ROLE_PLANT, SMALL, SMALL, 30 * SECOND},

	[METHOD_INVITE] = {"/hansa.v1.Operator/Invite", METHOD_UNARY, ROLE_OPERATOR, SMALL, SMALL, 30 * SECOND},
	[METHOD_REVOKE] = {"/hansa.v1.Operator/Revoke", METHOD_UNARY, ROLE_OPERATOR, SMALL, SMALL, 30 * SECOND},
	[METHOD_LIST_PLANTS] = {"/hansa.v1.Operator/ListPlants", METHOD_UNARY, ROLE_OPERATOR | ROLE_AUDITOR, SMALL,
				LARGE, 30 * SECOND},
	[METHOD_PUBLISH] = {"/hansa.v1.Operator/Publish", METHOD_UPLOAD, ROLE_OPERATOR | ROLE_LAB, PART, SMALL,
			    60 * MINUTE},
	[METHOD_START_JOB] = {"/hansa.v1.Operator/StartJob", METHOD_UNARY, ROLE_OPERATOR, WIRE_CONFIG_MAX + SMALL,
			      SMALL, 60 * SECOND},
	[METHOD_STOP_JOB] = {"/hansa.v1.Operator/StopJob", METHOD_UNARY, ROLE_OPERATOR, SMALL, SMALL, 30 * SECOND},
	[METHOD_RESUME_JOB] = {"/hansa.v1.Operator/ResumeJob", METHOD_UNARY, ROLE_OPERATOR, SMALL, SMALL, 30 * SECOND},
	[METHOD_LIST_JOBS] = {"/hansa.v1.Operator/ListJobs", METHOD_UNARY, ROLE_OPERATOR | ROLE_AUDITOR, SMALL, LARGE,
			      30 * SECOND},
	[METHOD_LIST_ROUNDS] = {"/hansa.v1.Operator/ListRounds", METHOD_UNARY, ROLE_OPERATOR | ROLE_AUDITOR, SMALL,
				LARGE, 30 * SECOND},
	[METHOD_WATCH] = {"/hansa.v1.Operator/Watch", METHOD_PARKED, ROLE_OPERATOR | ROLE_AUDITOR, SMALL, LARGE,
			  2 * MINUTE},
};

int method_find(const char *path, size_t n)
{
	for (int i = 0; i < METHOD_COUNT; i++) {
		if (strlen(methods[i].path) == n && memcmp(methods[i].path, path, n) == 0)
			return i;
	}
	return -1;
}
