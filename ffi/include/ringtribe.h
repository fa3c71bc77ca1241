/*
 * Ringtribe: replicates messages between the nodes of a cluster.
 *
 * A program opens a node; nodes that share a multicast group find each other; messages go to all
 * members or to some; a poll takes what the others sent. Link with libringtribe.so or libringtribe.a:
 *
 *     cc app.c $(pkg-config --cflags --libs ringtribe)
 *
 * ffi/c/examples/pair.c is a whole program. Linux 6.0 or newer, 64 bits.
 *
 * Calls      Every function returns a status, 0 (RINGTRIBE_OK) if it went well, and writes its results
 *            through the pointers that come last. A call that fails writes no result, unless its
 *            description says so. Nothing here ends the process or unwinds into the caller.
 * Threads    Every function may be called from any thread at any time, also while another thread is in
 *            a call on the same node. The library runs no code of the caller: there are no callbacks.
 *            A child of fork(2) must not use nodes that were opened before.
 * Handles    Nodes, members and deliveries are numbers. One that is closed, finished, or was never
 *            given out is recognised and refused; 0 is never one.
 * Pointers   What is not null must point to memory of the length that is stated beside it, which lives,
 *            and which nobody else writes, until the call returns; strings end with a 0. The library
 *            keeps none of them. Null is refused where something is needed, and may stand for "none"
 *            where the count beside it is 0, and for a result that is not wanted.
 * Structs    Those with a field "size" grow from version to version: set it to sizeof the struct before
 *            the call. A field that a newer caller sets and this library does not know is refused as
 *            RINGTRIBE_UNSUPPORTED. Set fields that are not used to 0. Structs without the field never
 *            change.
 * Texts      UTF-8. Where a result is a text of unknown length it is cut to the room that is there, and
 *            always ends with a 0 if there is any.
 * Times      Milliseconds, on a clock that nobody sets back.
 */
#ifndef RINGTRIBE_H
#define RINGTRIBE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface, and the number of the library's soname. While it is 0 any release may
 * change the interface; later it changes when a program must be compiled again. */
#define RINGTRIBE_ABI_VERSION 0

/** The version of the loaded library; a program may compare it with RINGTRIBE_ABI_VERSION. */
uint32_t ringtribe_abi_version(void);

/** The release of the loaded library, as in "0.1.0". Static. */
const char *ringtribe_version(void);

/* --- Status ------------------------------------------------------------------------------------- */

/** How a call, or a message at one member, ended. Numbers never change their meaning and are the same
 * in Rust, C and Java; later versions may add some. The hundreds tell whose fault it is: 1 the caller's
 * (the same call will fail again), 2 a peer's or the network's towards it, 3 this machine's or a
 * configured bound's (later it may go well), 4 a defect of the library. */
typedef int32_t ringtribe_status;

enum ringtribe_status_number {
    /** accepted */
    RINGTRIBE_OK = 0,
    /** the node is closed */
    RINGTRIBE_CLOSED = 101,
    /** no such member any more; look the member up again */
    RINGTRIBE_STALE_MEMBER = 102,
    /** an argument is out of its range */
    RINGTRIBE_BAD_ARGUMENT = 103,
    /** the message is longer than maxMessageBytes; raise it on every node */
    RINGTRIBE_TOO_BIG = 104,
    /** no members, and copies were asked for */
    RINGTRIBE_NO_MEMBERS = 105,
    /** not supported */
    RINGTRIBE_UNSUPPORTED = 106,
    /** no acknowledgement within ackTimeout; it may still be applied */
    RINGTRIBE_TIMEOUT = 201,
    /** the listener of the member failed */
    RINGTRIBE_REMOTE_FAILED = 202,
    /** connection refused: nothing listens at the member's address */
    RINGTRIBE_REFUSED = 203,
    /** the member was dropped from the cluster */
    RINGTRIBE_CUT = 204,
    /** the member left the cluster */
    RINGTRIBE_GOODBYE = 205,
    /** the member cannot be reached */
    RINGTRIBE_UNREACHABLE = 206,
    /** the member broke the protocol */
    RINGTRIBE_PROTOCOL = 207,
    /** the member stalled: it accepted nothing for ackTimeout */
    RINGTRIBE_STALLED = 208,
    /** another incarnation lives at the member's address */
    RINGTRIBE_WRONG_INCARNATION = 209,
    /** the queue to the member stayed full (maxQueueSize) */
    RINGTRIBE_QUEUE_FULL = 301,
    /** the operating system refused */
    RINGTRIBE_SYSTEM = 302,
    /** this machine does not offer what is needed */
    RINGTRIBE_ABSENT = 303,
    /** the poller went away without reporting an outcome */
    RINGTRIBE_ABANDONED = 304,
    /** a defect in the engine */
    RINGTRIBE_BUG = 401,
    RINGTRIBE_STATUS_LIMIT = 32767 /* keeps the enum an int */
};

/** A sentence for a log, of any number. Static, never null. */
const char *ringtribe_status_text(ringtribe_status status);

/* --- Nodes -------------------------------------------------------------------------------------- */

/** A running node of this process. */
typedef uint64_t ringtribe_node;

/** An attribute under its Tomcat name, as in { "mcastAddr", "228.0.0.4" }; README.md and the error
 * texts name them all. */
struct ringtribe_attribute {
    const char *name;
    const char *value;
};

/** Opens a node: starts its threads, listens (tcpListenAddress, the first free of tcpListenPort ..
 * + autoBind), joins the group (mcastAddr, mcastPort) and says it is there. Attributes that are not
 * given have Tomcat's defaults; of one that is given twice the last counts.
 *
 * Members are told by RINGTRIBE_KIND_MEMBER_ADDED as they are found; the first ones come within about
 * twice mcastFrequency (500 ms).
 *
 * @param attributes  `count` of them, at most 256; a name has at most 256 bytes, a value 64 KiB.
 * @param node        the node's handle; give it back with ringtribe_free.
 * @param error       room of `error_size` bytes for a sentence that names the cause and the remedy;
 *                    null with 0. Empty after success.
 * @return RINGTRIBE_BAD_ARGUMENT (an attribute is unknown or out of range, or a pointer is unusable),
 *         RINGTRIBE_ABSENT (no io_uring here), RINGTRIBE_SYSTEM (no free port, no such interface, ...);
 *         nothing is left running. */
ringtribe_status ringtribe_open(const struct ringtribe_attribute *attributes, size_t count,
                                ringtribe_node *node, char *error, size_t error_size);

/** As ringtribe_open, with the attributes of the Cluster element of a Tomcat server.xml, in the words
 * of 2007 or of today; `overrides` are applied after it.
 *
 * @param path  of the file, at most 4,095 bytes.
 * @return RINGTRIBE_BAD_ARGUMENT with the place in the file, if it cannot be read. */
ringtribe_status ringtribe_open_server_xml(const char *path,
                                           const struct ringtribe_attribute *overrides, size_t count,
                                           ringtribe_node *node, char *error, size_t error_size);

/** Where this node listens, as "127.0.0.1:4000" or "[::1]:4000"; 64 bytes are room enough. Valid until
 * ringtribe_free.
 *
 * @param needed  bytes of the whole text with its 0; may be null. Above `size`, the text was cut. */
ringtribe_status ringtribe_address(ringtribe_node node, char *text, size_t size, size_t *needed);

/** What the node counts and which kernel interface moves its bytes, as lines "name=value\n". Valid
 * until ringtribe_free. Arguments as ringtribe_address; about 4 KiB are room enough. */
ringtribe_status ringtribe_stats(ringtribe_node node, char *text, size_t size, size_t *needed);

/** Leaves the cluster in order, once: says goodbye, refuses new messages, sends what is queued for at
 * most `grace_ms`, fails the rest by name, and ends the node's threads. Whoever waits in another call
 * is woken. From the moment of the call on other calls fail with RINGTRIBE_CLOSED, but for these:
 * ringtribe_poll hands out what is left, completions and received messages, and then answers
 * RINGTRIBE_CLOSED; ringtribe_finish, ringtribe_address and ringtribe_stats go on as before.
 *
 * What was received and is not finished by then is abandoned: its sender is not told that it was
 * applied.
 *
 * @return RINGTRIBE_CLOSED if somebody closes or has closed it already: then this call did nothing. */
ringtribe_status ringtribe_close(ringtribe_node node, uint32_t grace_ms);

/** Gives a node back. Closes it first, without grace, if nobody has. Its handle is stale from now on:
 * every call answers RINGTRIBE_CLOSED. Deliveries that are not finished stay valid until they are.
 *
 * @return RINGTRIBE_CLOSED if there is no such node. */
ringtribe_status ringtribe_free(ringtribe_node node);

/* --- Members ------------------------------------------------------------------------------------ */

/** Another node as this one knows it. One that goes and comes back is another member. */
typedef uint64_t ringtribe_member;

#define RINGTRIBE_HOST_SIZE 64

struct ringtribe_member_info {
    uint32_t size;
    /** Where it listens. */
    uint32_t port;
    ringtribe_member member;
    /** How long it had run as of its last heartbeat, ms. */
    int64_t alive_ms;
    /** What is queued for it here, bytes. */
    uint64_t queued_bytes;
    /** The name of this life of it: random, the same wherever it is seen. */
    uint8_t unique_id[16];
    /** Its address in digits. */
    char host[RINGTRIBE_HOST_SIZE];
};

/** The members, without this node, in no promised order.
 *
 * @param members  room for `capacity` of them; null with 0.
 * @param count    how many there are; above `capacity`, the others were left out. */
ringtribe_status ringtribe_members(ringtribe_node node, ringtribe_member *members, size_t capacity,
                                   size_t *count);

/** Who a member is; member 0 is this node itself.
 *
 * @return RINGTRIBE_STALE_MEMBER if it has gone or never was. */
ringtribe_status ringtribe_member_info(ringtribe_node node, ringtribe_member member,
                                       struct ringtribe_member_info *info);

/* --- Sending ------------------------------------------------------------------------------------ */

/** When a message is done at a member. */
enum ringtribe_mode {
    /** It was handed to the kernel. */
    RINGTRIBE_MODE_NONE = 0,
    /** The member's node has it. If that node crashes before the message is applied it may be lost. */
    RINGTRIBE_MODE_RECEIVED = 1,
    /** Somebody took it there and finished it with RINGTRIBE_OK. */
    RINGTRIBE_MODE_APPLIED = 2
};

enum ringtribe_flag {
    /** An answer that somebody waits for: it goes on a connection that no other message waits on. */
    RINGTRIBE_FLAG_REPLY = 1,
    /** ringtribe_submit: no completion. What fails later is counted and logged. */
    RINGTRIBE_FLAG_QUIET = 2
};

struct ringtribe_message {
    uint32_t size;
    /** One of RINGTRIBE_MODE_*. */
    uint32_t mode;
    /** A sum of RINGTRIBE_FLAG_*. */
    uint32_t flags;
    /** 0. */
    uint32_t reserved;
    /** Copied before the call returns; at most maxMessageBytes, and may be none. */
    const void *payload;
    size_t payload_bytes;
    /** What keeps its order: messages of one key of one sender come out of ringtribe_poll in the order
     * of the calls that sent them. At most 64 KiB; none (0 bytes) promises no order. Two threads that
     * poll may still handle two messages of a key at once; where that matters poll with one. */
    const void *key;
    size_t key_bytes;
};

/** How a message ended at one member. */
struct ringtribe_outcome {
    ringtribe_member member;
    ringtribe_status status;
    uint32_t reserved;
};

/** Sends a message and waits until it is done at every member, as its mode says.
 *
 * @param members     `count` of them, at most 4096, none twice; null with 0: all there are now. If that
 *                    is nobody the call succeeds, and `*outcomes_count` is 0.
 * @param timeout_ms  longest wait, for room in the queues and for acknowledgement together; 0:
 *                    ackTimeout. A member that fails with RINGTRIBE_TIMEOUT may still apply the message,
 *                    once.
 * @param outcomes    how it ended at each member; room for `capacity`, null with 0. Written also when
 *                    the message failed at members, and then no other member's copy is taken back.
 * @param outcomes_count  members it was sent to; may be null. Above `capacity`, outcomes were left out.
 * @return RINGTRIBE_OK if all went well, the status of the first member that failed (in the order of
 *         the outcomes), or what is wrong with the call: RINGTRIBE_BAD_ARGUMENT, RINGTRIBE_TOO_BIG
 *         (longer than maxMessageBytes), RINGTRIBE_CLOSED; then `*outcomes_count` is 0. */
ringtribe_status ringtribe_send(ringtribe_node node, const struct ringtribe_message *message,
                                const ringtribe_member *members, size_t count, uint32_t timeout_ms,
                                struct ringtribe_outcome *outcomes, size_t capacity,
                                size_t *outcomes_count);

/** Queues a message and returns; it waits only for room in the queues (maxQueueSize), up to the
 * timeout. A delivery RINGTRIBE_KIND_COMPLETED with `token` follows when the message is done at every
 * member, unless it has RINGTRIBE_FLAG_QUIET. A message whose completion has not come when
 * ringtribe_poll answers RINGTRIBE_CLOSED has failed.
 *
 * @param token  any number; the library does not look at it.
 * @return as ringtribe_send for what is wrong with the call, and RINGTRIBE_NO_MEMBERS if it wants a
 *         completion and there is nobody; then nothing was queued and no completion follows. A quiet
 *         message answers the status of the first member that has failed already. */
ringtribe_status ringtribe_submit(ringtribe_node node, const struct ringtribe_message *message,
                                  const ringtribe_member *members, size_t count, uint32_t timeout_ms,
                                  uint64_t token);

/* --- Receiving ---------------------------------------------------------------------------------- */

/** What a poll takes. */
enum ringtribe_poll_class {
    /** Messages. What handles them may block, and may send. */
    RINGTRIBE_POLL_GENERAL = 0,
    /** Everything else, so that it never waits behind a message. Poll it all the time, from a thread
     * that runs nothing that blocks: what nobody takes stays in memory. */
    RINGTRIBE_POLL_RESERVED = 1
};

enum ringtribe_kind {
    /** Nothing came in time. No handle, nothing to finish. */
    RINGTRIBE_KIND_NOTHING = 0,
    /** A message: payload, member (0 if the sender is no member here), host, port, unique_id,
     * message_id, timestamp_ms, options. */
    RINGTRIBE_KIND_MESSAGE = 1,
    /** A member can be addressed: member, host, port, unique_id. */
    RINGTRIBE_KIND_MEMBER_ADDED = 2,
    /** A member's own data changed; fields as RINGTRIBE_KIND_MEMBER_ADDED. */
    RINGTRIBE_KIND_MEMBER_CHANGED = 3,
    /** A member has gone, its handle is stale, and what was queued for it failed. Fields as
     * RINGTRIBE_KIND_MEMBER_ADDED; status says why. */
    RINGTRIBE_KIND_MEMBER_GONE = 4,
    /** A message of ringtribe_submit is done: token; status, the first failure or RINGTRIBE_OK;
     * failures, the members where it failed. */
    RINGTRIBE_KIND_COMPLETED = 5,
    /** Messages between a member and this node are missing: member, lost_count (at most so many, 0 if
     * it is not known), level (0: the member missed messages of this node, 1: this node missed messages
     * of the member). Whoever keeps state should repair it and then call ringtribe_finish; until then
     * further gaps of the member are merged into this one. */
    RINGTRIBE_KIND_GAP = 6,
    /** Something an operator should read: level, payload (a text; a 0 stands behind it). */
    RINGTRIBE_KIND_LOG = 7
};

enum ringtribe_log_level {
    RINGTRIBE_LOG_DEBUG = 0,
    RINGTRIBE_LOG_INFO = 1,
    RINGTRIBE_LOG_WARN = 2,
    RINGTRIBE_LOG_ERROR = 3
};

/** What a poll took. Pointers in it are the library's, to be read until ringtribe_finish. Fields that
 * are not named at a kind are 0 there. */
struct ringtribe_delivery {
    uint32_t size;
    /** One of RINGTRIBE_KIND_*; later versions may add some: finish and ignore them. */
    uint32_t kind;
    /** For ringtribe_finish. */
    uint64_t handle;
    ringtribe_member member;
    const void *payload;
    size_t payload_bytes;
    const struct ringtribe_outcome *failures;
    size_t failures_count;
    uint64_t token;
    uint64_t lost_count;
    /** The sender's wall clock, ms since 1970. */
    int64_t timestamp_ms;
    /** Option bits of the Tribes format (Channel.SEND_OPTIONS_*). Without bit 0 the payload is a
     * serialized Java object, from a Tomcat. */
    int32_t options;
    ringtribe_status status;
    /** One of RINGTRIBE_LOG_*. */
    uint32_t level;
    uint32_t port;
    /** Names the message; no two of one sender have the same. */
    uint8_t message_id[16];
    /** Names the member, as in ringtribe_member_info. */
    uint8_t unique_id[16];
    char host[RINGTRIBE_HOST_SIZE];
};

/** Takes one delivery, waiting for it up to `timeout_ms` (0: not at all). Each must be finished with
 * ringtribe_finish, whatever its kind.
 *
 * @param poll_class  one of RINGTRIBE_POLL_*.
 * @return RINGTRIBE_OK, also with RINGTRIBE_KIND_NOTHING; RINGTRIBE_CLOSED when the node is closed and
 *         everything of the class was taken; RINGTRIBE_QUEUE_FULL if 1,048,576 deliveries of this process
 *         are out: finish some. */
ringtribe_status ringtribe_poll(ringtribe_node node, int32_t poll_class, uint32_t timeout_ms,
                                struct ringtribe_delivery *delivery);

/** Ends a delivery: what its pointers point to is freed, and its sender is told how it went if the
 * message asked (RINGTRIBE_MODE_APPLIED). Works once, in any order, from any thread, also after
 * ringtribe_close and ringtribe_free. What is received and not finished counts against maxReceiveBytes;
 * beyond that the node stops reading from its peers.
 *
 * @param node    the node whose poll gave it.
 * @param handle  of the delivery.
 * @param status  RINGTRIBE_OK: applied. Any other: it failed, and the sender of a message gets
 *                RINGTRIBE_REMOTE_FAILED. Looked at for messages only, but must be a status.
 * @return RINGTRIBE_BAD_ARGUMENT if there is no such delivery of this node (finished already, or never
 *         given out), or `status` is none; then nothing was finished. */
ringtribe_status ringtribe_finish(ringtribe_node node, uint64_t handle, ringtribe_status status);

#ifdef __cplusplus
}
#endif

#endif
