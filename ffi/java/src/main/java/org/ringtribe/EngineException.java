package org.ringtribe;

import java.io.IOException;

/** The engine refused a call; the text names the cause and the remedy. */
public class EngineException extends IOException {

    private static final long serialVersionUID = 1L;

    /** @param text names the input, the limit and the remedy */
    public EngineException(String text) {
        super(text);
    }
}
