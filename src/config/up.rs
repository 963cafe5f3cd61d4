//! The `[up]` section: what `millstream up` adds to its parts.

settings::section! {
    /// The `[up]` section.
    pub struct Config {
        /// The Kafka that all parts of `up` use, whatever their own sections say. The one in memory forgets everything at
        /// the end.
        pub kafka: String = String::new(), [is KAFKA];
        /// Where the backends' databases are, whatever their own sections say. The databases of a Kafka in memory are in
        /// its directory `in-memory` and begin anew at each start, as that Kafka does.
        pub data: String = String::new(), ["a directory; empty for ./data with a Kafka, a temporary one without"];
    }
}

const KAFKA: settings::Kind<String> = settings::Kind {
    words: "HOST:PORT, several with commas between; empty for one in memory",
    fits: |servers| servers.is_empty() || (settings::kafka::SERVERS.fits)(servers),
};
