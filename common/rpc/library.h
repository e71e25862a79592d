/*
 * Private to common/rpc: what library.c wants to know of the servers of this process.
 */
#ifndef HANSA_RPC_LIBRARY_H
#define HANSA_RPC_LIBRARY_H

#include <stdbool.h>

void library_serves(bool starts); /* a server starts, or has stopped */

#endif
