package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

import org.apache.catalina.Session;

/** What another node has of some sessions beside what is here: who is ahead, what has ended, what both changed. */
final class Comparison {

    /** Copies are used at times that differ a little even where one is told of the other. */
    private static final long NOTED_MILLIS = 1000;

    private final RingtribeDeltaManager manager;
    private final ReconcileMessage answer;
    private final List<Session> ahead = new ArrayList<>();
    private final List<String> kept = new ArrayList<>();
    private final List<String> yielded = new ArrayList<>();

    /** Sessions that have ended there end here. */
    Comparison(RingtribeDeltaManager manager, ReconcileMessage digests) {
        this.manager = manager;
        answer = new ReconcileMessage(ReconcileMessage.Kind.ANSWER, digests.round);
        answer.block = digests.block;
        Set<String> named = new HashSet<>();
        for (ReconcileMessage.Entry theirs : digests.entries) {
            named.add(theirs.id);
            compare(theirs);
        }
        if (!digests.isWhole) {
            return;
        }
        for (Session session : manager.live()) {
            String id = session.getIdInternal();
            boolean isBetween = id.compareTo(digests.from) > 0 && (digests.to.isEmpty() || id.compareTo(digests.to) <= 0);
            if (isBetween && !named.contains(id)) {
                ahead.add(session);
            }
        }
    }

    /** @return what the other node is to send, and to end */
    ReconcileMessage answer() {
        return answer;
    }

    /** @return sessions that the other node does not have, or has an older copy of */
    List<Session> ahead() {
        return ahead;
    }

    /** @return sessions that both changed and whose copy here stays, by hash */
    List<String> kept() {
        return kept;
    }

    /** @return sessions that both changed and whose copy there stays, by hash */
    List<String> yielded() {
        return yielded;
    }

    private void compare(ReconcileMessage.Entry theirs) {
        RingtribeDeltaSession mine = manager.find(theirs.id);
        boolean isLive = mine != null && mine.isLive();
        switch (theirs.knowledge) {
            case HELD:
                if (isLive) {
                    compare(theirs, mine);
                } else {
                    ExpiredSessions.End end = manager.copies().expired().of(theirs.id);
                    boolean hasEnded = end != null && end.ends(theirs.createdAt, theirs.accessedAt, theirs.changes);
                    answer.entries.add(hasEnded ? ReconcileMessage.Entry.ended(theirs.id, end)
                            : ReconcileMessage.Entry.unknown(theirs.id));
                }
                break;
            case ENDED:
                if (isLive && !manager.copies().endedElsewhere(mine, theirs.end())) {
                    ahead.add(mine);
                }
                break;
            default:
                if (isLive) {
                    ahead.add(mine);
                }
        }
    }

    private void compare(ReconcileMessage.Entry theirs, RingtribeDeltaSession mine) {
        mine.lock();
        try {
            boolean hasAll = mine.changes().holds(theirs.changes);
            boolean theyHaveAll = theirs.changes.holds(mine.changes());
            if (hasAll && theyHaveAll) {
                long later = mine.getThisAccessedTimeInternal() - theirs.accessedAt;
                if (later > NOTED_MILLIS) {
                    answer.entries.add(ReconcileMessage.Entry.used(mine));
                } else if (later < -NOTED_MILLIS) {
                    mine.usedElsewhere(theirs.accessedAt);
                }
            } else if (hasAll) {
                ahead.add(mine);
            } else if (theyHaveAll) {
                answer.entries.add(ReconcileMessage.Entry.held(mine, false));
            } else if (mine.changes().prevailsOver(theirs.changes, mine.changedAt(), theirs.changedAt)) {
                kept.add(mine.hash() + " (that of this node stays)");
                mine.absorb(theirs.changes);
                ahead.add(mine);
                answer.entries.add(ReconcileMessage.Entry.overruled(theirs.id));
            } else {
                yielded.add(mine.hash() + " (that of the other node stays)");
                answer.entries.add(ReconcileMessage.Entry.held(mine, true));
            }
        } finally {
            mine.unlock();
        }
    }
}
