/*
 * Two nodes that replicate to each other. Start both, each in a terminal of its own:
 *
 *     ./pair alpha 47110
 *     ./pair beta 47110
 *
 * Each waits until it sees the other, sends 1,000 messages in each mode and 1,000 without waiting, and
 * checks what the other sent: every byte, and the order of each key. The port is that of the
 * multicast group; a third argument is the number of messages.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ringtribe.h>

enum { KEYS = 8, ROUNDS = 4, WITHIN_S = 60, LONGEST_BYTES = 5000 };

/* The rounds: three modes with a caller that waits, and one that queues. */
static const uint32_t modes[ROUNDS] = {RINGTRIBE_MODE_NONE, RINGTRIBE_MODE_RECEIVED,
                                       RINGTRIBE_MODE_APPLIED, RINGTRIBE_MODE_APPLIED};
enum { QUEUED_ROUND = 3, GOODBYE = 255 };

/* What stands at the front of each payload; then follow bytes that depend on it. */
struct head {
    uint32_t round;
    uint32_t key;
    uint32_t number;
    uint32_t length_bytes;
};

static ringtribe_node node;
static uint32_t messages_count = 1000;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
/* Under the lock: */
static ringtribe_member other;
static uint32_t received_count;
static uint32_t next_number[ROUNDS][KEYS];
static uint32_t completed_count;
static uint32_t seen_count;
static uint32_t goodbyes_count;

static void fail(const char *what, ringtribe_status status)
{
    fprintf(stderr, "%s: %s (%d)\n", what, ringtribe_status_text(status), (int)status);
    exit(1);
}

static void must(const char *what, ringtribe_status status)
{
    if (status != RINGTRIBE_OK)
        fail(what, status);
}

static unsigned char byte_at(const struct head *head, uint32_t at)
{
    return (unsigned char)(head->round * 31 + head->key * 7 + head->number + at);
}

static void check(const struct ringtribe_delivery *delivery)
{
    struct head head;
    if (delivery->payload_bytes < sizeof head)
        fail("a short message", RINGTRIBE_PROTOCOL);
    memcpy(&head, delivery->payload, sizeof head);
    if (head.round == GOODBYE) {
        goodbyes_count++;
        return;
    }
    if (head.round >= ROUNDS || head.key >= KEYS || head.length_bytes != delivery->payload_bytes)
        fail("a wrong head", RINGTRIBE_PROTOCOL);
    const unsigned char *bytes = delivery->payload;
    for (uint32_t at = sizeof head; at < head.length_bytes; at++)
        if (bytes[at] != byte_at(&head, at))
            fail("a wrong byte", RINGTRIBE_PROTOCOL);
    if (head.number != next_number[head.round][head.key]++) {
        fprintf(stderr, "round %u key %u: number %u came instead of %u\n", (unsigned)head.round,
                (unsigned)head.key, (unsigned)head.number,
                (unsigned)next_number[head.round][head.key] - 1);
        exit(1);
    }
    received_count++;
}

/* Takes messages; one thread, so that messages of a key are handled one after the other. */
static void *take_messages(void *unused)
{
    for (;;) {
        struct ringtribe_delivery delivery = {.size = sizeof delivery};
        ringtribe_status status = ringtribe_poll(node, RINGTRIBE_POLL_GENERAL, 1000, &delivery);
        if (status == RINGTRIBE_CLOSED)
            return unused;
        must("poll", status);
        if (delivery.kind == RINGTRIBE_KIND_NOTHING)
            continue;
        pthread_mutex_lock(&lock);
        check(&delivery);
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        must("finish", ringtribe_finish(node, delivery.handle, RINGTRIBE_OK));
    }
}

/* Takes everything else. */
static void *take_events(void *unused)
{
    for (;;) {
        struct ringtribe_delivery delivery = {.size = sizeof delivery};
        ringtribe_status status = ringtribe_poll(node, RINGTRIBE_POLL_RESERVED, 1000, &delivery);
        if (status == RINGTRIBE_CLOSED)
            return unused;
        must("poll for events", status);
        pthread_mutex_lock(&lock);
        switch (delivery.kind) {
        case RINGTRIBE_KIND_NOTHING:
            break;
        case RINGTRIBE_KIND_MEMBER_ADDED:
            printf("sees %s:%u\n", delivery.host, (unsigned)delivery.port);
            other = delivery.member;
            seen_count++;
            break;
        case RINGTRIBE_KIND_COMPLETED:
            must("a queued message", delivery.status);
            /* Tokens are 1, 2, 3 ...; keys run side by side, so they come in any order. */
            completed_count++;
            break;
        case RINGTRIBE_KIND_LOG:
            fprintf(stderr, "log %u: %s\n", (unsigned)delivery.level, (const char *)delivery.payload);
            break;
        default:
            break;
        }
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        if (delivery.kind != RINGTRIBE_KIND_NOTHING)
            must("finish an event", ringtribe_finish(node, delivery.handle, RINGTRIBE_OK));
    }
}

/* Waits, with the lock, until `*number` is at least `least`. */
static void await_count(const char *what, const uint32_t *number, uint32_t least)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WITHIN_S;
    while (*number < least)
        if (pthread_cond_timedwait(&changed, &lock, &until) != 0) {
            fprintf(stderr, "%s: %u of %u after %d s\n", what, (unsigned)*number, (unsigned)least,
                    WITHIN_S);
            exit(1);
        }
}

static void send_round(uint32_t round, unsigned char *room)
{
    uint32_t numbers[KEYS] = {0};
    for (uint32_t i = 0; i < messages_count; i++) {
        struct head head = {.round = round, .key = i % KEYS};
        head.number = numbers[head.key]++;
        head.length_bytes = (uint32_t)sizeof head + (i * 37) % (LONGEST_BYTES - sizeof head);
        memcpy(room, &head, sizeof head);
        for (uint32_t at = sizeof head; at < head.length_bytes; at++)
            room[at] = byte_at(&head, at);
        struct ringtribe_message message = {
            .size = sizeof message,
            .mode = modes[round],
            .payload = room,
            .payload_bytes = head.length_bytes,
            .key = &head.key,
            .key_bytes = sizeof head.key,
        };
        if (round == QUEUED_ROUND) {
            must("submit", ringtribe_submit(node, &message, NULL, 0, 0, i + 1));
            continue;
        }
        struct ringtribe_outcome outcome;
        size_t count = 0;
        must("send", ringtribe_send(node, &message, NULL, 0, 0, &outcome, 1, &count));
        if (count != 1)
            fail("send to one member", RINGTRIBE_NO_MEMBERS);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s NAME MCAST_PORT [MESSAGES]\n", argv[0]);
        return 2;
    }
    if (argc > 3)
        messages_count = (uint32_t)strtoul(argv[3], NULL, 10);
    if (ringtribe_abi_version() != RINGTRIBE_ABI_VERSION) {
        fprintf(stderr, "compiled for another libringtribe\n");
        return 1;
    }

    const struct ringtribe_attribute attributes[] = {
        {"mcastAddr", "228.0.0.9"},        {"mcastPort", argv[2]},
        {"mcastBindAddr", "127.0.0.1"},    {"mcastFrequency", "100"},
        {"mcastDropTime", "3000"},         {"tcpListenAddress", "127.0.0.1"},
        {"tcpListenPort", "4500"},         {"autoBind", "500"},
    };
    char text[512];
    ringtribe_status status =
        ringtribe_open(attributes, sizeof attributes / sizeof *attributes, &node, text, sizeof text);
    if (status != RINGTRIBE_OK)
        fail(text, status);
    must("address", ringtribe_address(node, text, sizeof text, NULL));
    printf("%s listens on %s, ringtribe %s\n", argv[1], text, ringtribe_version());

    pthread_t threads[2];
    pthread_create(&threads[0], NULL, take_messages, NULL);
    pthread_create(&threads[1], NULL, take_events, NULL);

    pthread_mutex_lock(&lock);
    await_count("other nodes", &seen_count, 1);
    ringtribe_member peer = other;
    pthread_mutex_unlock(&lock);

    unsigned char *room = malloc(LONGEST_BYTES);
    if (room == NULL)
        return 1;
    for (uint32_t round = 0; round < ROUNDS; round++)
        send_round(round, room);
    free(room);

    pthread_mutex_lock(&lock);
    await_count("received", &received_count, ROUNDS * messages_count);
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t key = 0; key < KEYS; key++)
            if (next_number[round][key] != (messages_count + KEYS - 1 - key) / KEYS)
                fail("a message is missing", RINGTRIBE_PROTOCOL);
    pthread_mutex_unlock(&lock);

    /* Nobody goes before the other has everything. */
    struct head goodbye = {.round = GOODBYE, .length_bytes = sizeof goodbye};
    struct ringtribe_message message = {
        .size = sizeof message,
        .mode = RINGTRIBE_MODE_RECEIVED,
        .payload = &goodbye,
        .payload_bytes = sizeof goodbye,
    };
    must("goodbye", ringtribe_send(node, &message, &peer, 1, 0, NULL, 0, NULL));

    pthread_mutex_lock(&lock);
    await_count("completed", &completed_count, messages_count);
    await_count("goodbyes", &goodbyes_count, 1);
    pthread_mutex_unlock(&lock);

    must("close", ringtribe_close(node, 2000));
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    must("free", ringtribe_free(node));
    printf("%s is done: %u messages each way, in order\n", argv[1],
           (unsigned)(ROUNDS * messages_count));
    return 0;
}
