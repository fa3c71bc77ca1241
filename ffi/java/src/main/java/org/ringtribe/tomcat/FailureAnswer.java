package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.util.SessionConfig;
import org.ringtribe.Engine;

/** What a client is told when its session could not be copied: the words of onReplicationFailure. */
enum FailureAnswer {

    /** The log says it, the client gets what the application answered. */
    LOG("log"),
    /** As the application answered, with a header. */
    HEADER("header"),
    /** Not as the application answered. */
    UNAVAILABLE("503");

    static final String ATTRIBUTE = "onReplicationFailure";
    static final String HEADER_NAME = "X-Ringtribe-Replication";

    private static final int STATUS = 503;
    /** Who is gone is no member any more by then: the default mcastDropTime is 3 s, and 1 s to notice it. */
    private static final int RETRY_AFTER_SECONDS = 5;

    private final String word;

    FailureAnswer(String word) {
        this.word = word;
    }

    String word() {
        return word;
    }

    /** @return null if there is no such word */
    static FailureAnswer of(String word) {
        for (FailureAnswer answer : values()) {
            if (word != null && answer.word.equals(word.trim())) {
                return answer;
            }
        }
        return null;
    }

    /** @return a sentence about a value that is no word of this */
    static String refusal(String value, String element) {
        List<String> words = new ArrayList<>();
        Arrays.asList(values()).forEach(answer -> words.add(answer.word));
        return ATTRIBUTE + "=\"" + value + "\" of " + element + " is refused: it is one of " + String.join(", ", words)
                + "; " + Engine.didYouMean(String.valueOf(value), words);
    }

    /**
     * Answers, if that is still possible. It is not when the response was begun: flushed, closed, or
     * larger than its buffer; nor while another thread answers, after startAsync and before complete.
     *
     * @return false: too late, the client has or gets what the application answered
     */
    boolean give(Request request, Response response) throws IOException {
        if (this == LOG) {
            return true;
        }
        if (response.isCommitted() || (request.isAsync() && !request.isAsyncCompleting())) {
            return false;
        }
        if (this == HEADER) {
            response.setHeader(HEADER_NAME, "failed");
            return true;
        }
        List<String> cookies = sessionCookies(request, response);
        response.reset();
        // Without it a client that repeats the request would have lost its session: it may have a new id.
        cookies.forEach(cookie -> response.addHeader("Set-Cookie", cookie));
        response.setStatus(STATUS);
        response.setHeader("Retry-After", String.valueOf(RETRY_AFTER_SECONDS));
        response.setContentType("text/plain");
        response.setCharacterEncoding("UTF-8");
        PrintWriter text = response.getReporter();
        if (text != null) {
            text.println("The session could not be copied to another server. Please try again.");
        }
        return true;
    }

    private static List<String> sessionCookies(Request request, Response response) {
        String name = SessionConfig.getSessionCookieName(request.getContext());
        List<String> found = new ArrayList<>();
        for (String cookie : response.getHeaders("Set-Cookie")) {
            if (cookie.startsWith(name + "=")) {
                found.add(cookie);
            }
        }
        return found;
    }

    /** @return what was done, for the log */
    String said(boolean inTime) {
        if (!inTime) {
            return "onReplicationFailure=\"" + word + "\" came too late, the response was on its way";
        }
        return this == LOG ? "it was answered as if nothing had happened"
                : this == HEADER ? "the response has the header " + HEADER_NAME + ": failed" : "it was answered with 503";
    }
}
