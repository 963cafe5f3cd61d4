//! What to look at when there is no connection to Kafka, by the words that librdkafka has for it.

/// Words of librdkafka's, and what to look at; the first that is there decides.
const ADVICE: &[(&str, &str)] = &[
    (
        "Failed to resolve",
        "nobody knows a host of this name: check the address, and DNS",
    ),
    (
        "a PLAINTEXT",
        "TLS is spoken to a port that does not speak it: check security.protocol and the port",
    ),
    (
        "SSL connection closed",
        "TLS is spoken to a port that does not speak it: check security.protocol and the port",
    ),
    (
        "verif",
        "Kafka speaks TLS, but its certificate is not trusted: check ssl.ca.location",
    ),
    ("SSL handshake", "TLS fails: check the ssl properties"),
    (
        "SSL listener",
        "Kafka hangs up on plain text: if the port wants TLS or a SASL login, set security.protocol",
    ),
    (
        "SASL",
        "Kafka does not accept the SASL login: check sasl.mechanism, sasl.username and sasl.password",
    ),
    (
        "Disconnected",
        "what listens there hangs up: is it Kafka, and if the port wants TLS or a SASL login, is security.protocol set?",
    ),
];

/// What to look at, by what librdkafka says of a connection.
#[must_use]
pub fn advice(cause: &str) -> &'static str {
    ADVICE
        .iter()
        .find(|(words, _)| cause.contains(words))
        .map_or("is it running, and is the address right?", |found| found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_first_decides_and_silence_is_a_question() {
        for (cause, word) in [
            (
                "Failed to resolve 'a.b:9092': Name or service not known",
                "DNS",
            ),
            (
                "SSL handshake failed: certificate verify failed",
                "ssl.ca.location",
            ),
            (
                "SASL authentication error: Authentication failed",
                "sasl.password",
            ),
            (
                "Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                "is it running",
            ),
            (
                "Disconnected: SSL connection closed by peer",
                "does not speak it",
            ),
            ("no answer", "is it running"),
        ] {
            assert!(advice(cause).contains(word), "{cause}: {}", advice(cause));
        }
    }
}
