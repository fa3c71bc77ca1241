/*
 * Every wrong argument, and what the library says to it. Two nodes in one process, which find each other
 * through the multicast group whose port is the only argument. Under a sanitizer: nothing here may be
 * undefined behaviour of the library.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ringtribe.h>

static int checks_count;

static void expect(int line, const char *what, long long got, long long wanted)
{
    checks_count++;
    if (got == wanted)
        return;
    fprintf(stderr, "misuse.c:%d: %s is %lld (%s), not %lld (%s)\n", line, what, got,
            ringtribe_status_text((ringtribe_status)got), wanted,
            ringtribe_status_text((ringtribe_status)wanted));
    exit(1);
}

#define IS(what, wanted) expect(__LINE__, #what, (long long)(what), (long long)(wanted))
#define HOLDS(what) expect(__LINE__, #what, (what) != 0, 1)
#define REFUSED(what) IS(what, RINGTRIBE_BAD_ARGUMENT)

static const char *mcast_port;

static ringtribe_status open_with(const struct ringtribe_attribute *more, size_t count,
                                  ringtribe_node *node, char *error, size_t error_size)
{
    struct ringtribe_attribute attributes[32] = {
        {"mcastAddr", "228.0.0.9"},     {"mcastPort", mcast_port},
        {"mcastBindAddr", "127.0.0.1"}, {"mcastFrequency", "100"},
        {"mcastDropTime", "3000"},      {"tcpListenAddress", "127.0.0.1"},
        {"tcpListenPort", "5100"},      {"autoBind", "500"},
        {"maxMessageBytes", "100000"},
    };
    for (size_t at = 0; at < count; at++)
        attributes[9 + at] = more[at];
    return ringtribe_open(attributes, 9 + count, node, error, error_size);
}

/* The next delivery of a kind; others are finished. */
static struct ringtribe_delivery take(int line, ringtribe_node node, int32_t poll_class, uint32_t kind)
{
    for (int turn = 0; turn < 200; turn++) {
        struct ringtribe_delivery delivery = {.size = sizeof delivery};
        expect(line, "poll", ringtribe_poll(node, poll_class, 100, &delivery), RINGTRIBE_OK);
        if (delivery.kind == kind)
            return delivery;
        if (delivery.kind != RINGTRIBE_KIND_NOTHING)
            expect(line, "finish", ringtribe_finish(node, delivery.handle, RINGTRIBE_OK),
                   RINGTRIBE_OK);
    }
    fprintf(stderr, "misuse.c:%d: no delivery of kind %u\n", line, (unsigned)kind);
    exit(1);
}

#define TAKE(node, poll_class, kind) take(__LINE__, node, RINGTRIBE_POLL_##poll_class, RINGTRIBE_KIND_##kind)

static void names_and_texts(void)
{
    IS(ringtribe_abi_version(), RINGTRIBE_ABI_VERSION);
    HOLDS(strchr(ringtribe_version(), '.'));
    HOLDS(strcmp(ringtribe_status_text(RINGTRIBE_OK), "accepted") == 0);
    HOLDS(strstr(ringtribe_status_text(RINGTRIBE_TOO_BIG), "maxMessageBytes"));
    HOLDS(strlen(ringtribe_status_text(999)) > 0);
    HOLDS(strlen(ringtribe_status_text(-1)) > 0);
    HOLDS(strlen(ringtribe_status_text(INT32_MIN)) > 0);
}

/* What is not opened leaves the handle alone and says why. */
static void refused(int line, const char *name, const char *value, ringtribe_status status,
                    const char *says)
{
    struct ringtribe_attribute attribute = {name, value};
    ringtribe_node node = 77;
    char error[512] = "";
    expect(line, name, open_with(&attribute, 1, &node, error, sizeof error), status);
    expect(line, "the handle", (long long)node, 77);
    if (strstr(error, says) == NULL) {
        fprintf(stderr, "misuse.c:%d: \"%s\" does not say \"%s\"\n", line, error, says);
        exit(1);
    }
}

static void opening(void)
{
    struct ringtribe_attribute good = {"mcastPort", mcast_port};
    struct ringtribe_attribute no_name = {NULL, "1"};
    struct ringtribe_attribute no_value = {"mcastPort", NULL};
    ringtribe_node node = 77;
    char error[512];
    REFUSED(ringtribe_open(&good, 1, NULL, error, sizeof error));
    REFUSED(ringtribe_open(&good, 1, (ringtribe_node *)((char *)&node + 1), error, sizeof error));
    REFUSED(ringtribe_open(&good, 1, &node, NULL, 10));
    REFUSED(ringtribe_open(&good, 1, &node, error, SIZE_MAX));
    REFUSED(ringtribe_open(NULL, 1, &node, error, sizeof error));
    HOLDS(strstr(error, "null"));
    REFUSED(ringtribe_open(&good, 257, &node, error, sizeof error));
    HOLDS(strstr(error, "256"));
    REFUSED(ringtribe_open(&good, SIZE_MAX, &node, error, sizeof error));
    REFUSED(ringtribe_open((void *)((char *)&good + 1), 1, &node, error, sizeof error));
    REFUSED(ringtribe_open(&no_name, 1, &node, error, sizeof error));
    HOLDS(strstr(error, "name of attribute 0"));
    REFUSED(ringtribe_open(&no_value, 1, &node, NULL, 0));

    char *endless = malloc((64 << 10) + 2);
    HOLDS(endless != NULL);
    memset(endless, '0', (64 << 10) + 1);
    endless[(64 << 10) + 1] = 0;
    refused(__LINE__, "mcastPort", endless, RINGTRIBE_BAD_ARGUMENT, "65536 bytes");
    refused(__LINE__, endless, "1", RINGTRIBE_BAD_ARGUMENT, "256 bytes");
    endless[256] = 0;
    refused(__LINE__, endless, "1", RINGTRIBE_BAD_ARGUMENT, "no such attribute");
    free(endless);

    refused(__LINE__, "mcastPort", "\xff\xfe", RINGTRIBE_BAD_ARGUMENT, "UTF-8");
    refused(__LINE__, "mcastFreqency", "500", RINGTRIBE_BAD_ARGUMENT, "mcastFrequency");
    refused(__LINE__, "tcpThreadCount", "1000", RINGTRIBE_BAD_ARGUMENT, "1 to 64");
    refused(__LINE__, "mcastDropTime", "100", RINGTRIBE_BAD_ARGUMENT, "2 x mcastFrequency");
    refused(__LINE__, "tcpListenAddress", "0.0.0.0", RINGTRIBE_BAD_ARGUMENT, "one address");
    refused(__LINE__, "tcpListenAddress", "192.0.2.1", RINGTRIBE_BAD_ARGUMENT, "127.0.0.1");
    refused(__LINE__, "mcastBindAddr", "192.0.2.1", RINGTRIBE_SYSTEM, "mcastBindAddr");

    /* The text is cut to its room and ends with a 0. */
    struct ringtribe_attribute bad = {"tcpThreadCount", "\xc3\xa4\xc3\xa4\xc3\xa4"};
    memset(error, '#', sizeof error);
    REFUSED(ringtribe_open(&bad, 1, &node, error, 1));
    IS(error[0], 0);
    IS(error[1], '#');
    /* tcpThreadCount=" is 16 bytes; the second byte of the first letter has no room. */
    REFUSED(ringtribe_open(&bad, 1, &node, error, 18));
    HOLDS(strcmp(error, "tcpThreadCount=\"") == 0);
    IS(error[18], '#');

    REFUSED(ringtribe_open_server_xml(NULL, NULL, 0, &node, error, sizeof error));
    HOLDS(strstr(error, "path"));
    HOLDS(ringtribe_open_server_xml("/nowhere/server.xml", NULL, 0, &node, error, sizeof error)
          != RINGTRIBE_OK);
    HOLDS(strstr(error, "/nowhere/server.xml"));
    IS(node, 77);
}

static void no_such_node(ringtribe_node node)
{
    char text[64];
    size_t count = 0;
    struct ringtribe_member_info info = {.size = sizeof info};
    struct ringtribe_message message = {.size = sizeof message};
    struct ringtribe_delivery delivery = {.size = sizeof delivery};
    IS(ringtribe_address(node, text, sizeof text, NULL), RINGTRIBE_CLOSED);
    IS(ringtribe_stats(node, text, sizeof text, NULL), RINGTRIBE_CLOSED);
    IS(ringtribe_members(node, NULL, 0, &count), RINGTRIBE_CLOSED);
    IS(ringtribe_member_info(node, 0, &info), RINGTRIBE_CLOSED);
    IS(ringtribe_send(node, &message, NULL, 0, 0, NULL, 0, NULL), RINGTRIBE_CLOSED);
    IS(ringtribe_submit(node, &message, NULL, 0, 0, 1), RINGTRIBE_CLOSED);
    IS(ringtribe_poll(node, RINGTRIBE_POLL_GENERAL, 0, &delivery), RINGTRIBE_CLOSED);
    REFUSED(ringtribe_finish(node, 1, RINGTRIBE_OK));
    IS(ringtribe_close(node, 0), RINGTRIBE_CLOSED);
    IS(ringtribe_free(node), RINGTRIBE_CLOSED);
}

static void alone(ringtribe_node node)
{
    struct ringtribe_message message = {.size = sizeof message, .mode = RINGTRIBE_MODE_APPLIED};
    size_t count = 9;
    IS(ringtribe_send(node, &message, NULL, 0, 0, NULL, 0, &count), RINGTRIBE_OK);
    IS(count, 0);
    IS(ringtribe_submit(node, &message, NULL, 0, 0, 1), RINGTRIBE_NO_MEMBERS);
    message.flags = RINGTRIBE_FLAG_QUIET;
    IS(ringtribe_submit(node, &message, NULL, 0, 0, 1), RINGTRIBE_OK);
    count = 9;
    IS(ringtribe_members(node, NULL, 0, &count), RINGTRIBE_OK);
    IS(count, 0);

    /* Its port is taken. */
    char address[64];
    IS(ringtribe_address(node, address, sizeof address, NULL), RINGTRIBE_OK);
    struct ringtribe_attribute taken[] = {{"tcpListenPort", strchr(address, ':') + 1},
                                          {"autoBind", "1"}};
    ringtribe_node second;
    char error[256];
    IS(open_with(taken, 2, &second, error, sizeof error), RINGTRIBE_SYSTEM);
    HOLDS(strstr(error, "autoBind"));
}

static void texts(ringtribe_node node)
{
    char text[64];
    size_t needed = 0;
    memset(text, '#', sizeof text);
    IS(ringtribe_address(node, NULL, 0, &needed), RINGTRIBE_OK);
    IS(needed, strlen("127.0.0.1:5100") + 1);
    IS(ringtribe_address(node, text, 5, NULL), RINGTRIBE_OK);
    HOLDS(strcmp(text, "127.") == 0);
    IS(text[5], '#');
    REFUSED(ringtribe_address(node, NULL, 5, &needed));
    REFUSED(ringtribe_address(node, text, sizeof text, (size_t *)(void *)(text + 1)));
    IS(ringtribe_stats(node, text, sizeof text, &needed), RINGTRIBE_OK);
    HOLDS(needed > sizeof text);
    IS(strlen(text), sizeof text - 1);
    HOLDS(strncmp(text, "backend=io_uring", 16) == 0);
    REFUSED(ringtribe_stats(node, NULL, 1, NULL));
}

static void members(ringtribe_node node, ringtribe_member other)
{
    ringtribe_member all[3] = {1, 2, 3};
    size_t count = 0;
    REFUSED(ringtribe_members(node, all, 3, NULL));
    REFUSED(ringtribe_members(node, NULL, 3, &count));
    REFUSED(ringtribe_members(node, all, SIZE_MAX, &count));
    IS(ringtribe_members(node, NULL, 0, &count), RINGTRIBE_OK);
    IS(count, 1);
    IS(ringtribe_members(node, all, 3, &count), RINGTRIBE_OK);
    IS(all[0], other);
    IS(all[1], 2);

    struct ringtribe_member_info info = {.size = sizeof info};
    REFUSED(ringtribe_member_info(node, other, NULL));
    IS(ringtribe_member_info(node, other + 1, &info), RINGTRIBE_STALE_MEMBER);
    IS(ringtribe_member_info(node, other + (1ULL << 32), &info), RINGTRIBE_STALE_MEMBER);
    IS(ringtribe_member_info(node, other | (1ULL << 63), &info), RINGTRIBE_STALE_MEMBER);
    IS(ringtribe_member_info(node, UINT64_MAX, &info), RINGTRIBE_STALE_MEMBER);
    info.size = 0;
    REFUSED(ringtribe_member_info(node, other, &info));
    info.size = sizeof info - 1;
    REFUSED(ringtribe_member_info(node, other, &info));
    info.size = UINT32_MAX;
    REFUSED(ringtribe_member_info(node, other, &info));
    /* A caller of a later version: what this one does not know becomes 0. */
    struct {
        struct ringtribe_member_info info;
        uint64_t later[2];
        uint64_t behind;
    } newer = {.info = {.size = sizeof info + 16}, .later = {7, 7}, .behind = 7};
    IS(ringtribe_member_info(node, other, &newer.info), RINGTRIBE_OK);
    IS(newer.info.size, sizeof info + 16);
    IS(newer.info.member, other);
    HOLDS(strcmp(newer.info.host, "127.0.0.1") == 0);
    IS(newer.later[0] + newer.later[1], 0);
    IS(newer.behind, 7);
    info.size = sizeof info;
    IS(ringtribe_member_info(node, 0, &info), RINGTRIBE_OK);
    HOLDS(info.port != newer.info.port);
    HOLDS(memcmp(info.unique_id, newer.info.unique_id, 16) != 0);
}

static void sending(ringtribe_node node, ringtribe_member other)
{
    static const char key[(64 << 10) + 1];
    const ringtribe_member twice[2] = {other, other};
    const ringtribe_member mixed[2] = {other + 1, other};
    static ringtribe_member many[4097];
    for (size_t at = 0; at < 4097; at++)
        many[at] = at + 1;
    struct ringtribe_outcome outcomes[2];
    size_t count = 9;
    struct ringtribe_message message;
    const struct ringtribe_message good = {.size = sizeof good, .payload = "hello", .payload_bytes = 5};

#define SENT(change, wanted)                                                                        \
    message = good;                                                                                 \
    change;                                                                                         \
    IS(ringtribe_send(node, &message, &other, 1, 0, NULL, 0, &count), wanted);                      \
    IS(ringtribe_submit(node, &message, &other, 1, 0, 0), wanted)

    SENT(message.size = 0, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.size = 4, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.size = UINT32_MAX, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.mode = 3, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.mode = UINT32_MAX, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.flags = 4, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.reserved = 1, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.payload = NULL, RINGTRIBE_BAD_ARGUMENT);
    SENT(message.key_bytes = 3, RINGTRIBE_BAD_ARGUMENT);
    SENT((message.key = key, message.key_bytes = sizeof key), RINGTRIBE_BAD_ARGUMENT);
    SENT((message.key = key, message.key_bytes = SIZE_MAX), RINGTRIBE_BAD_ARGUMENT);
    SENT(message.payload_bytes = 100001, RINGTRIBE_TOO_BIG);
    SENT(message.payload_bytes = SIZE_MAX, RINGTRIBE_TOO_BIG);
    IS(count, 0);
    message = good;
    message.flags = RINGTRIBE_FLAG_QUIET;
    REFUSED(ringtribe_send(node, &message, &other, 1, 0, NULL, 0, NULL));

    REFUSED(ringtribe_send(node, NULL, &other, 1, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, (void *)((char *)&message + 1), &other, 1, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, &other, 0, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, NULL, 1, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, (void *)((char *)twice + 1), 1, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, twice, 2, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, many, 4097, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, many, SIZE_MAX, 0, NULL, 0, NULL));
    REFUSED(ringtribe_send(node, &good, &other, 1, 0, NULL, 1, &count));
    REFUSED(ringtribe_send(node, &good, &other, 1, 0, outcomes, SIZE_MAX, &count));
    REFUSED(ringtribe_submit(node, NULL, &other, 1, 0, 0));
    REFUSED(ringtribe_submit(node, &good, &other, 0, 0, 0));

    /* A later version's field, unused and used. */
    struct {
        struct ringtribe_message message;
        uint64_t later;
    } newer = {.message = good, .later = 0};
    newer.message.size = sizeof newer;
    IS(ringtribe_send(node, &newer.message, &other, 1, 0, NULL, 0, NULL), RINGTRIBE_OK);
    newer.later = 1;
    IS(ringtribe_send(node, &newer.message, &other, 1, 0, NULL, 0, NULL), RINGTRIBE_UNSUPPORTED);

    /* One member is none: it fails by name, the other has the message. */
    IS(ringtribe_send(node, &good, mixed, 2, 0, outcomes, 2, &count), RINGTRIBE_STALE_MEMBER);
    IS(count, 2);
    IS(outcomes[0].member, mixed[0]);
    IS(outcomes[0].status, RINGTRIBE_STALE_MEMBER);
    IS(outcomes[1].member, other);
    IS(outcomes[1].status, RINGTRIBE_OK);
    outcomes[1].status = 12345;
    IS(ringtribe_send(node, &good, mixed, 2, 0, outcomes, 1, &count), RINGTRIBE_STALE_MEMBER);
    IS(count, 2);
    IS(outcomes[1].status, 12345);
}

/* What `from` submits, `to` takes; tokens and outcomes come back. */
static void delivering(ringtribe_node from, ringtribe_node to, ringtribe_member other)
{
    struct ringtribe_delivery delivery = {.size = sizeof delivery};
    REFUSED(ringtribe_poll(to, 2, 0, &delivery));
    REFUSED(ringtribe_poll(to, -1, 0, &delivery));
    REFUSED(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, NULL));
    REFUSED(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, (void *)((char *)&delivery + 1)));
    delivery.size = 8;
    REFUSED(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, &delivery));
    delivery.size = sizeof delivery;
    /* Three copies of "hello" came in `sending`. */
    for (int turn = 0; turn < 3; turn++) {
        delivery = TAKE(to, GENERAL, MESSAGE);
        IS(delivery.payload_bytes, 5);
        HOLDS(memcmp(delivery.payload, "hello", 5) == 0);
        IS(ringtribe_finish(to, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    }
    IS(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, &delivery), RINGTRIBE_OK);
    IS(delivery.kind, RINGTRIBE_KIND_NOTHING);
    IS(delivery.handle, 0);

    struct ringtribe_message message = {.size = sizeof message, .mode = RINGTRIBE_MODE_APPLIED};
    /* No bytes at all; the listener fails. */
    IS(ringtribe_submit(from, &message, &other, 1, 0, 41), RINGTRIBE_OK);
    delivery = TAKE(to, GENERAL, MESSAGE);
    IS(delivery.payload_bytes, 0);
    IS(delivery.options, 7);
    HOLDS(delivery.member != 0);
    HOLDS(strcmp(delivery.host, "127.0.0.1") == 0);
    REFUSED(ringtribe_finish(to, 0, RINGTRIBE_OK));
    REFUSED(ringtribe_finish(to, UINT64_MAX, RINGTRIBE_OK));
    REFUSED(ringtribe_finish(to, delivery.handle + 1, RINGTRIBE_OK));
    REFUSED(ringtribe_finish(to, delivery.handle + (1ULL << 32), RINGTRIBE_OK));
    REFUSED(ringtribe_finish(from, delivery.handle, RINGTRIBE_OK));
    REFUSED(ringtribe_finish(to, delivery.handle, 999));
    REFUSED(ringtribe_finish(to, delivery.handle, -1));
    REFUSED(ringtribe_finish(to, delivery.handle, INT32_MIN));
    IS(ringtribe_finish(to, delivery.handle, RINGTRIBE_REMOTE_FAILED), RINGTRIBE_OK);
    REFUSED(ringtribe_finish(to, delivery.handle, RINGTRIBE_OK));
    delivery = TAKE(from, RESERVED, COMPLETED);
    IS(delivery.token, 41);
    IS(delivery.status, RINGTRIBE_REMOTE_FAILED);
    IS(delivery.failures_count, 1);
    IS(delivery.failures[0].member, other);
    IS(delivery.failures[0].status, RINGTRIBE_REMOTE_FAILED);
    IS(ringtribe_finish(from, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);

    /* All of the largest; it is applied. */
    char *large = malloc(100000);
    HOLDS(large != NULL);
    for (size_t at = 0; at < 100000; at++)
        large[at] = (char)(at % 251);
    message.payload = large;
    message.payload_bytes = 100000;
    IS(ringtribe_submit(from, &message, NULL, 0, 0, UINT64_MAX), RINGTRIBE_OK);
    delivery = TAKE(to, GENERAL, MESSAGE);
    IS(delivery.payload_bytes, 100000);
    HOLDS(memcmp(delivery.payload, large, 100000) == 0);
    IS(ringtribe_finish(to, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    delivery = TAKE(from, RESERVED, COMPLETED);
    HOLDS(delivery.token == UINT64_MAX);
    IS(delivery.status, RINGTRIBE_OK);
    IS(delivery.failures_count, 0);
    IS(ringtribe_finish(from, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    free(large);

    /* Nobody finishes it in time; finishing it later is no error. */
    message.payload = "late";
    message.payload_bytes = 4;
    struct ringtribe_outcome outcome;
    IS(ringtribe_send(from, &message, &other, 1, 200, &outcome, 1, NULL), RINGTRIBE_TIMEOUT);
    IS(outcome.status, RINGTRIBE_TIMEOUT);
    delivery = TAKE(to, GENERAL, MESSAGE);
    IS(ringtribe_finish(to, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);
}

static void *poll_until_closed(void *node)
{
    ringtribe_status status;
    do {
        struct ringtribe_delivery delivery = {.size = sizeof delivery};
        status = ringtribe_poll(*(ringtribe_node *)node, RINGTRIBE_POLL_GENERAL, UINT32_MAX, &delivery);
        if (status == RINGTRIBE_OK)
            IS(ringtribe_finish(*(ringtribe_node *)node, delivery.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    } while (status == RINGTRIBE_OK);
    IS(status, RINGTRIBE_CLOSED);
    return NULL;
}

static void closing(ringtribe_node from, ringtribe_node to, ringtribe_member other)
{
    struct ringtribe_message message = {
        .size = sizeof message, .mode = RINGTRIBE_MODE_RECEIVED, .payload = "kept", .payload_bytes = 4};
    IS(ringtribe_send(from, &message, &other, 1, 0, NULL, 0, NULL), RINGTRIBE_OK);
    struct ringtribe_delivery held = TAKE(to, GENERAL, MESSAGE);
    /* Taken and not finished: whoever waits for it must not believe that it was applied. */
    struct ringtribe_message waiting = {.size = sizeof waiting, .mode = RINGTRIBE_MODE_APPLIED};
    IS(ringtribe_submit(from, &waiting, &other, 1, 0, 43), RINGTRIBE_OK);
    struct ringtribe_delivery abandoned = TAKE(to, GENERAL, MESSAGE);
    IS(ringtribe_send(from, &message, &other, 1, 0, NULL, 0, NULL), RINGTRIBE_OK);

    IS(ringtribe_close(to, 1000), RINGTRIBE_OK);
    IS(ringtribe_close(to, 1000), RINGTRIBE_CLOSED);
    struct ringtribe_member_info info = {.size = sizeof info};
    size_t count;
    char text[64];
    IS(ringtribe_send(to, &message, NULL, 0, 0, NULL, 0, NULL), RINGTRIBE_CLOSED);
    IS(ringtribe_submit(to, &message, NULL, 0, 0, 0), RINGTRIBE_CLOSED);
    IS(ringtribe_members(to, NULL, 0, &count), RINGTRIBE_CLOSED);
    IS(ringtribe_member_info(to, 0, &info), RINGTRIBE_CLOSED);
    IS(ringtribe_address(to, text, sizeof text, NULL), RINGTRIBE_OK);
    IS(ringtribe_stats(to, text, sizeof text, NULL), RINGTRIBE_OK);
    /* What was received is handed out also after closing. */
    struct ringtribe_delivery left = {.size = sizeof left};
    IS(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, &left), RINGTRIBE_OK);
    IS(left.kind, RINGTRIBE_KIND_MESSAGE);
    IS(ringtribe_poll(to, RINGTRIBE_POLL_GENERAL, 0, &left), RINGTRIBE_CLOSED);
    IS(ringtribe_finish(to, left.handle, RINGTRIBE_OK), RINGTRIBE_OK);

    IS(ringtribe_free(to), RINGTRIBE_OK);
    /* What is held stays readable. */
    HOLDS(memcmp(held.payload, "kept", 4) == 0);
    no_such_node(to);
    IS(ringtribe_finish(to, held.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    REFUSED(ringtribe_finish(to, held.handle, RINGTRIBE_OK));

    IS(ringtribe_finish(to, abandoned.handle, RINGTRIBE_OK), RINGTRIBE_OK);

    /* The other node learns it, in either order; the member's handle is stale. */
    int gone = 0, failed = 0;
    while (!gone || !failed) {
        struct ringtribe_delivery event = {.size = sizeof event};
        IS(ringtribe_poll(from, RINGTRIBE_POLL_RESERVED, 20000, &event), RINGTRIBE_OK);
        HOLDS(event.kind != RINGTRIBE_KIND_NOTHING);
        if (event.kind == RINGTRIBE_KIND_MEMBER_GONE) {
            IS(event.member, other);
            IS(event.status, RINGTRIBE_GOODBYE);
            gone = 1;
        }
        if (event.kind == RINGTRIBE_KIND_COMPLETED) {
            IS(event.token, 43);
            IS(event.status, RINGTRIBE_GOODBYE);
            failed = 1;
        }
        IS(ringtribe_finish(from, event.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    }
    IS(ringtribe_member_info(from, other, &info), RINGTRIBE_STALE_MEMBER);
    IS(ringtribe_submit(from, &message, &other, 1, 0, 5), RINGTRIBE_OK);
    struct ringtribe_delivery completed = TAKE(from, RESERVED, COMPLETED);
    IS(completed.token, 5);
    IS(completed.status, RINGTRIBE_STALE_MEMBER);
    IS(ringtribe_finish(from, completed.handle, RINGTRIBE_OK), RINGTRIBE_OK);

    /* Threads that wait without end come back. */
    pthread_t threads[2];
    for (int at = 0; at < 2; at++)
        IS(pthread_create(&threads[at], NULL, poll_until_closed, &from), 0);
    IS(ringtribe_free(from), RINGTRIBE_OK);
    for (int at = 0; at < 2; at++)
        IS(pthread_join(threads[at], NULL), 0);
    no_such_node(from);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s MCAST_PORT\n", argv[0]);
        return 2;
    }
    mcast_port = argv[1];
    names_and_texts();
    opening();
    no_such_node(0);
    no_such_node(1);
    no_such_node(1ULL << 32);
    no_such_node(UINT64_MAX);

    ringtribe_node first = 0, second = 0;
    char error[512];
    IS(open_with(NULL, 0, &first, error, sizeof error), RINGTRIBE_OK);
    IS(error[0], 0);
    alone(first);
    texts(first);
    IS(open_with(NULL, 0, &second, NULL, 0), RINGTRIBE_OK);
    HOLDS(first != second);
    no_such_node(second + (1ULL << 32));
    struct ringtribe_delivery added = TAKE(first, RESERVED, MEMBER_ADDED);
    ringtribe_member other = added.member;
    IS(ringtribe_finish(first, added.handle, RINGTRIBE_OK), RINGTRIBE_OK);
    added = TAKE(second, RESERVED, MEMBER_ADDED);
    IS(ringtribe_finish(second, added.handle, RINGTRIBE_OK), RINGTRIBE_OK);

    members(first, other);
    sending(first, other);
    delivering(first, second, other);
    closing(first, second, other);
    printf("%d checks\n", checks_count);
    return 0;
}
