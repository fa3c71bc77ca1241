package org.ringtribe.tomcat;

import java.util.Collections;
import java.util.List;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

import org.apache.catalina.ha.tcp.ReplicationValve;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * A {@link ReplicationValve} that takes the filter list of Tomcat 5.5 and refuses what is no regular
 * expression; stock logs that and goes on without a filter.
 */
public class RingtribeReplicationValve extends ReplicationValve {

    private static final Log log = LogFactory.getLog(RingtribeReplicationValve.class);

    private String error;

    @Override
    public void setFilter(String filter) {
        String regex = filter;
        if (FilterList.isList(filter)) {
            regex = FilterList.toRegex(filter);
            log.info(FilterList.said(filter));
        }
        try {
            if (regex != null) {
                Pattern.compile(regex);
            }
            error = null;
            super.setFilter(regex);
        } catch (PatternSyntaxException e) {
            error = "filter=\"" + filter + "\" of Valve is refused: it is no regular expression ("
                    + e.getDescription() + " near index " + e.getIndex()
                    + "); give one that matches whole paths, as in .*\\.gif|.*\\.js";
        }
    }

    /** @return what is wrong, a sentence each */
    List<String> errors() {
        return error == null ? Collections.<String>emptyList() : Collections.singletonList(error);
    }
}
