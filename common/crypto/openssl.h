/*
 * The door to OpenSSL 3.0: the only file that includes its headers; private to common/crypto and its tests.
 * OpenSSL has a type ERR_STATE (of no use here) and Hansa an error of that name; the type is read under another one.
 */
#ifndef HANSA_CRYPTO_OPENSSL_H
#define HANSA_CRYPTO_OPENSSL_H

#define ERR_STATE OPENSSL_ERR_STATE
#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#undef ERR_STATE

#endif
