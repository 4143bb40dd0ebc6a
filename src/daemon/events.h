/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: every kind of line in the journal, with the message id of its catalog entry */
#pragma once

#include <syslog.h>

/* EVENT(name, message id, priority, limited). Lines that an agent can cause at will are limited. An id never changes its
 * meaning. units/scached.catalog explains each kind of line. */
#define EVENTS(EVENT)                                                                     \
        EVENT(STARTED, "40a12d84b5ce4253a5f37c855e3973a5", LOG_INFO, false)               \
        EVENT(LEAVING, "b29193bd55c94e94983efa4890605cde", LOG_INFO, false)               \
        EVENT(STATISTICS, "eb9d1d6e09fd48b8a067a4e3f22161b1", LOG_INFO, false)            \
        EVENT(UNUSED, "24242c7ddc2d42c79c75234f66d5a41b", LOG_INFO, false)                \
        EVENT(SETTINGS_BAD, "80849954ca314b49af3b2fa1deeb4d4c", LOG_ERR, false)           \
        EVENT(SETTINGS_DOUBTFUL, "e7883d4d93ff4257a5bcf692c14d75e2", LOG_WARNING, false)  \
        EVENT(RELOADED, "2d31d5e88a504672a54f0b651a5ebaf2", LOG_INFO, false)              \
        EVENT(NO_SOCKETS, "b48e07b9d8f24a2e848ed38b425cba0e", LOG_ERR, false)             \
        EVENT(SOCKET_UNKNOWN, "41048522225f4e8fa1a1468ddb6cb360", LOG_WARNING, false)     \
        EVENT(SOCKET_RESTRICTED, "4aac3fb1e2a14edab0f9f336d7ea2206", LOG_WARNING, false)  \
        EVENT(FAILED, "b1237fdd6587401e8e76076f46e4809c", LOG_ERR, false)                 \
        EVENT(AGENT_LIMIT, "373ab017b117475d9e324bc34e60c244", LOG_WARNING, true)         \
        EVENT(AGENT_MEMORY, "01939eb94fbb4a62a0653296bd6dbd58", LOG_WARNING, true)        \
        EVENT(AGENT_STUCK, "b2e4eab2a11440bc804b6076df6b5e2e", LOG_WARNING, true)         \
        EVENT(ACCEPT_FAILED, "4c7908dd244640c7898e9f5b2842fcf8", LOG_WARNING, true)       \
        EVENT(REQUEST_MALFORMED, "eb73f6bdbc194f4592f26746f2cb63eb", LOG_WARNING, true)   \
        EVENT(REQUEST_UNKNOWN, "df336649e7534736a59ef78e740ec49d", LOG_WARNING, true)     \
        EVENT(REQUEST_ENDLESS, "7b5c764764c14d76a544e846eadf52a4", LOG_WARNING, true)     \
        EVENT(DESCRIPTOR_UNWANTED, "081c0f872ee3470f90c538f68e567f0f", LOG_WARNING, true) \
        EVENT(DESCRIPTOR_MISSING, "b7d82b58214a4fc9828e02c99685a018", LOG_WARNING, true)  \
        EVENT(DESCRIPTOR_REFUSED, "d73bb360b0f349688c85c57f5f87087b", LOG_WARNING, true)  \
        EVENT(HAND_OVER_FAILED, "9be9c0ffca7e4ae78f3e7f54984a4440", LOG_WARNING, true)    \
        EVENT(EXHAUSTED, "f1957809ee4f4b44be477d01b9855263", LOG_WARNING, true)           \
        EVENT(LIMIT_REACHED, "97823a69ead34b4d8b1d88b3b890b44a", LOG_NOTICE, true)        \
        EVENT(EPOCH_CHANGED, "cfb3f7770c6b431fb7ce4ef7cfd0a705", LOG_INFO, true)          \
        EVENT(EPOCH_UNKNOWN, "cf3eb393810d4938960a682c5fa03f25", LOG_WARNING, true)       \
        EVENT(KEPT, "c908ffb1d88641169e04e386069947d4", LOG_INFO, false)                  \
        EVENT(NOT_KEPT, "ce540fd25e2a4c02b9cacc8c32f96403", LOG_WARNING, false)           \
        EVENT(PARTED, "8f7d487e1c744df1a271b24f29725a5b", LOG_INFO, false)                \
        EVENT(TAKEN_OVER, "94d1a86bd38b4d38a6fea1587c671b56", LOG_INFO, false)            \
        EVENT(INDEX_REFUSED, "db896ac73da7400aac4b5b82705c22b4", LOG_WARNING, false)      \
        EVENT(CLOSE_STUCK, "3410bdca6fdc4448a2a91ba36d6520c9", LOG_WARNING, true)         \
        EVENT(LINES_LOST, "c4d331dd6d8e4c088c8e433054a45f5a", LOG_WARNING, false)         \
        EVENT(TRACE, "f451ddb27dc34d59adad38f0dde118ab", LOG_DEBUG, false)

enum event {
#define EVENT(name, id, priority, limited) EVENT_##name,
        EVENTS(EVENT)
#undef EVENT
                _EVENT_MAX,
};
