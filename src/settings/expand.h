/* settings: $name in a value */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

/* Find the value of a name as it was written, before expansion; NULL where it has none. tested: the value only
 * decides between ? and :, so that a missing one is no surprise. What is returned stays until the expansion ends. */
typedef const char *(*settings_lookup_fn)(void *userdata, struct slice name, bool tested);

#define SETTINGS_PROBLEM_MAX 256

/* Bounds of one expansion. Text past them is an error that says so. */
#define SETTINGS_VALUE_MAX    4096u  /* bytes in a value of ours, before and after $name */
#define SETTINGS_EXPAND_DEPTH 100u   /* $name inside $name inside ... (Postfix has the same bound) */
#define SETTINGS_EXPAND_STEPS 10000u /* $name in one value, those inside of others counted too */

/* Expand a value as Postfix does:
 *
 *     $name  $(name)  ${name}          the value of name, itself expanded; nothing where it has none
 *     ${name?text}  ${name?{text}}     text where the value of name is not empty
 *     ${name:text}  ${name:{text}}     text where it is empty or missing
 *     ${name?{text}:{text}}            one or the other
 *     ${{text}=={text}?{text}:{text}}  the same with == != < <= >= >, of numbers if both are, else of strings
 *     $$                               a dollar sign
 *
 * name is whose value it is (a value that comes back to its own name is an error); out has room for
 * SETTINGS_VALUE_MAX + 1 bytes, problem for SETTINGS_PROBLEM_MAX. Returns 0, or -EINVAL with the problem in words. */
int settings_expand(const char *name, const char *value, settings_lookup_fn lookup, void *userdata,
        char *out, char *problem);
