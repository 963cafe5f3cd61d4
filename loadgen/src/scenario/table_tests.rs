//! Tables of scenarios: what is planned, and what is refused with which sentence.

use super::Scenario;
use crate::plan::{Pace, Plan, Relation};
use crate::swarm::Client;

const HEAD: &str = "name = \"test\"\n";

fn planned(text: &str) -> Result<Plan, String> {
    Scenario::parse(&format!("{HEAD}{text}"), "test")
        .and_then(|scenario| scenario.plan(7, 8))
        .map_err(|why| why.to_string())
}

/// A publisher group of `publishers` and a subscriber group of `subscribers` clients.
fn plan_of(
    publishers: u32,
    topic: &str,
    topics: u32,
    subscribers: u32,
    subscribe: &str,
) -> Result<Plan, String> {
    planned(&format!(
        "[[group]]\nname = \"p\"\nclients = {publishers}\n\
         [[group]]\nname = \"s\"\nclients = {subscribers}\n\
         [[group.subscribe]]\n{subscribe}\n\
         [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"{topic}\"\ntopics = {topics}\nqos = 1\nper_second = 10\n"
    ))
}

fn relation(plan: &Plan) -> String {
    let relations: Vec<String> = plan.streams[0]
        .audiences
        .iter()
        .map(|audience| match &audience.relation {
            Relation::Listed(lists) => format!("{lists:?}"),
            other => format!("{other:?}"),
        })
        .collect();
    relations.join(" ")
}

#[test]
fn relations_follow_from_filters_and_topics() {
    for (topic, topics, subscribers, subscribe, wanted) in [
        ("a/{n}", 3, 3, "filter = \"a/{n}\"", "Own"),
        ("a/{n}", 3, 9, "filter = \"a/{n}\"", "Own"),
        ("a/{n}/x", 3, 2, "filter = \"+/{n}/#\"", "Own"),
        ("a/{n}", 3, 2, "filter = \"a/+\"", "All"),
        ("a", 1, 2, "filter = \"a\"", "All"),
        ("a/1", 1, 2, "filter = \"a/{n}\"", "[[1]]"),
        (
            "a/{n%2}/{n}",
            4,
            2,
            "filter = \"a/{n}/+\"",
            "[[0], [1], [0], [1]]",
        ),
        ("a/{n}", 2, 4, "filter = \"a/{n/2}\"", "[[0, 1], [2, 3]]"),
        ("a/{n}", 3, 2, "filter = \"a/1\"", "[[], [0, 1], []]"),
        (
            "a/{n}",
            4,
            2,
            "filter = \"a/{i}\"\ncount = 3",
            "[[0, 1], [0, 1], [0, 1], []]",
        ),
        ("a/{n}", 3, 2, "filter = \"a/{i}\"\ncount = 3", "All"),
        (
            "{n%2}/x/{n/2}",
            4,
            2,
            "filter = \"{i}/+/{n}/#\"\ncount = 2",
            "[[0], [0], [1], [1]]",
        ),
        ("a/{n}", 3, 2, "filter = \"b/#\"", ""),
        ("a/{n}", 3, 2, "filter = \"a/7\"", ""),
        ("a/{n}", 3, 2, "filter = \"a/#\"\nshare = \"g\"", "Shared"),
        ("a/{n%1}", 1, 2, "filter = \"a/0\"\nshare = \"g\"", "Shared"),
        ("a/{n}", 3, 2, "filter = \"b/#\"\nshare = \"g\"", ""),
    ] {
        let plan = plan_of(1, topic, topics, subscribers, subscribe).unwrap();
        assert_eq!(
            relation(&plan),
            wanted,
            "{topic} {topics} {subscribers} {subscribe}"
        );
    }
}

#[test]
fn listed_relations_are_what_matching_says() {
    let plan = plan_of(
        1,
        "a/{n%7}/{n/3}/{n}",
        210,
        30,
        "filter = \"a/{i%7}/{n}/#\"\ncount = 7",
    )
    .unwrap();
    let (stream, group) = (&plan.streams[0], &plan.groups[1]);
    let Relation::Listed(lists) = &stream.audiences[0].relation else {
        panic!("{}", relation(&plan));
    };
    let (mut topic, mut filter) = (String::new(), String::new());
    for (number, clients) in (0..).zip(&lists[..]) {
        stream.topic.render(number, 0, &mut topic);
        let matching: Vec<u32> = (0..30)
            .filter(|n| {
                (0..7).any(|i| {
                    group.subscriptions[0].filter.render(*n, i, &mut filter);
                    topic::matches(&filter, &topic)
                })
            })
            .collect();
        assert_eq!(*clients, matching, "{topic}");
    }
}

#[test]
fn numbers_defaults_and_the_smaller_qos() {
    let plan = plan_of(2, "a/{n}", 4, 3, "filter = \"a/#\"").unwrap();
    assert_eq!((plan.run, plan.seed, plan.name.as_str()), (7, 8, "test"));
    assert_eq!(
        (plan.groups[0].first, plan.groups[1].first),
        (Client(0), Client(2))
    );
    assert_eq!(plan.groups[1].client_id.text(), "s-{n}");
    let stream = &plan.streams[0];
    assert_eq!((stream.lanes, stream.topics, stream.burst), (4, 4, 1));
    assert_eq!((stream.payload_bytes, stream.window), (100, 1_000));
    assert_eq!(stream.pace, Pace::PerSecond(10.0));
    let audience = &stream.audiences[0];
    assert_eq!((u8::from(stream.qos), u8::from(audience.qos)), (1, 0));
    assert!(audience.checked);
}

#[test]
fn topics_are_as_many_as_publishers_or_as_another_groups_clients() {
    for (topic, key, wanted) in [
        ("a/{n}", "", 6),
        ("a", "", 1),
        ("a/{n}", "topics = 3", 3),
        ("a/{n}", "topics_of = \"s\"", 12),
    ] {
        let plan = planned(&format!(
            "[[group]]\nname = \"p\"\nclients = 6\n[[group]]\nname = \"s\"\nclients = 12\n\
             [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"{topic}\"\nper_second = 1\n{key}\n"
        ))
        .unwrap();
        assert_eq!(plan.streams[0].topics, wanted, "{topic} {key}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence() {
    let stream = |rest: &str| {
        format!(
            "[[group]]\nname = \"g\"\nclients = 4\n[[stream]]\nname = \"m\"\ngroup = \"g\"\n{rest}"
        )
    };
    let group = |rest: &str| format!("[[group]]\nname = \"g\"\n{rest}");
    for (text, wanted) in [
        (
            String::new(),
            "group: a scenario has 1 to 1,000 groups of clients, this one has 0",
        ),
        (
            group("clients = 0"),
            "group \"g\": clients is 0; allowed are 1 to 4,294,967,295",
        ),
        (group("clients = -1"), "clients is -1;"),
        (group("clients = 4294967296"), "clients is 4,294,967,296;"),
        (
            group("clients = 4294967295\n[[group]]\nname = \"h\"\nclients = 1"),
            "group \"h\": clients is 1; all groups together",
        ),
        (
            group("clients = 1\n[[group]]\nname = \"g\"\nclients = 1"),
            "two groups have this name",
        ),
        (
            group("clients = 2\nclient_id = \"x\""),
            "each client needs one of its own: put {n} in",
        ),
        (group("clients = 2\nclient_id = \"{n%10}\""), "put {n} in"),
        (
            group("clients = 2\nclient_id = \"{n}{i}\""),
            "{i} counts a subscription's filters",
        ),
        (
            group("clients = 2\nclient_id = \"{x}\""),
            "{x} is not known",
        ),
        (group("clients = 1\nclient_id = \"\""), "1 to 65,535 bytes"),
        (
            group(
                "clients = 1\nclient_id = \"{n}\"\n[[group]]\nname = \"h\"\nclients = 1\nclient_id = \"0{n}\"",
            ),
            "group \"h\": client_id is \"0{n}\"; clients of group \"g\" may have the same",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a+\""),
            "subscribe \"a+\": filter is \"a+\"; ",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a\"\nqos = 3"),
            "qos is 3; allowed are 0, 1 and 2",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a\"\ncount = 0"),
            "count is 0; allowed are 1 to 1,000,000",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a/{n}\"\ncount = 2"),
            "put {i} in",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a\"\nshare = \"a/b\""),
            "share is \"a/b\"; a share's name has",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a\"\nshare = \"\""),
            "share is \"\";",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a\"\nshare = \"+\""),
            "share is \"+\";",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"a/{n}\"\nshare = \"x\""),
            "no {n} and no {i}",
        ),
        (
            group("clients = 1\n[[group.subscribe]]\nfilter = \"$share/x/a\""),
            "share = \"NAME\"",
        ),
        (
            group(
                "clients = 1\n[[group.subscribe]]\nfilter = \"a\"\nshare = \"x\"\n[[group]]\nname = \"h\"\nclients = 1\n[[group.subscribe]]\nfilter = \"a\"\nshare = \"x\"",
            ),
            "group \"g\" has the same share",
        ),
        (
            stream("topic = \"a\""),
            "stream \"m\": it needs exactly one of per_second",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\nonce = true"),
            "it needs exactly one of",
        ),
        (
            stream("topic = \"a\"\nper_second = 0"),
            "stream \"m\": per_second is 0; a rate is more than 0",
        ),
        (
            stream("topic = \"a\"\nper_second = -2.5"),
            "per_second is -2.5;",
        ),
        (
            stream("topic = \"a\"\nper_second = nan"),
            "per_second is NaN;",
        ),
        (
            stream("topic = \"a\"\nper_second = 1e30"),
            "at most 100,000,000 a second",
        ),
        (
            format!(
                "[run]\nseconds = 2592000\n{}",
                stream("topic = \"a\"\nper_second = 10000")
            ),
            "per_second is 10000; over 2592005 seconds",
        ),
        (
            stream("topic = \"a/+\"\nper_second = 1"),
            "topic is \"a/+\"; ",
        ),
        (
            stream("topic = \"$x\"\nper_second = 1"),
            "topics that begin with $",
        ),
        (
            stream("topic = \"{n}/{i}\"\nper_second = 1"),
            "here it is {n}",
        ),
        (
            stream("topic = \"a\"\ntopics = 2\nper_second = 1"),
            "it does not give 2 different topics",
        ),
        (
            stream("topic = \"a/{n}\"\ntopics = 0\nper_second = 1"),
            "topics is 0; allowed are 1 to",
        ),
        (
            stream("topic = \"a/{n}\"\ntopics = 6\nper_second = 1"),
            "4 publishers and 6 topics do not divide",
        ),
        (
            stream("topic = \"a/{n}\"\ntopics = 4\ntopics_of = \"g\"\nper_second = 1"),
            "only one of them is allowed",
        ),
        (
            stream("topic = \"a/{n}\"\ntopics_of = \"x\"\nper_second = 1"),
            "topics_of is \"x\"; there is no such group, but \"g\"",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload_bytes = 23"),
            "payload_bytes is 23; allowed are 24 to 268,",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload_bytes = 999999999"),
            "payload_bytes is 999,999,999;",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload = '{stamp}{x}'"),
            "stream \"m\": payload: {x} is not known; allowed are {stamp}, {n}, {publisher}, {value} and {fill}",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload = '{fill}'"),
            "payload: {stamp} has to be in it exactly once",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload = '{stamp}'\npayload_bytes = 100"),
            "stream \"m\": payload_bytes is 100; the stream's payload is as long as it is",
        ),
        (
            stream(
                "topic = \"a/{n}\"\ntopics = 4000\nper_second = 1\npayload = '{stamp}{n}{fill}'\npayload_bytes = 39",
            ),
            "stream \"m\": payload_bytes is 39; allowed are 40 to 268,",
        ),
        (
            stream(&format!(
                "topic = \"a\"\nper_second = 1\npayload = '{}{{stamp}}'",
                "a".repeat(478)
            )),
            "payload: its {stamp} may end at byte 513; it is looked for in the first 512",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\npayload = '{fill}{stamp}'\npayload_bytes = 513"),
            "may end at byte 513",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\nqos = 3"),
            "stream \"m\": qos is 3;",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\nwindow = 0"),
            "window is 0; allowed are 1 to 65,535",
        ),
        (
            stream("topic = \"a\"\nper_second = 1\nburst = 0"),
            "burst is 0;",
        ),
        (
            stream("topic = \"a\"\nonce = true\nqos = 1"),
            "window: highest and once need it",
        ),
        (
            stream("topic = \"a\"\nhighest = true\nqos = 1"),
            "window: highest and once need it",
        ),
        (
            stream("topic = \"a\"\nonce = true\nwindow = 1"),
            "qos is 0; highest and once need 1 or 2",
        ),
        (
            stream("topic = \"a\"\nonce = true\nwindow = 1\nqos = 1\nburst = 2"),
            "only per_second knows bursts",
        ),
        (
            stream(
                "topic = \"a\"\nper_second = 1\n[[stream]]\nname = \"m\"\ngroup = \"g\"\ntopic = \"b\"\nper_second = 1",
            ),
            "two streams have this name",
        ),
        (
            stream("topic = \"a\"\nper_second = 1").replace("group = \"g\"", "group = \"x\""),
            "stream \"m\": group is \"x\"; there is no such group, but \"g\"",
        ),
        (
            format!("[churn]\ngroup = \"g\"\n{}", group("clients = 1")),
            "churn: it needs one of",
        ),
        (
            format!(
                "[churn]\ngroup = \"x\"\nper_second = 1\n{}",
                group("clients = 1")
            ),
            "churn.group is \"x\";",
        ),
        (
            format!(
                "[churn]\ngroup = \"g\"\nper_second = 0\n{}",
                group("clients = 1")
            ),
            "churn.per_second is 0;",
        ),
        (
            format!(
                "[churn]\ngroup = \"g\"\nper_second = 1\nstorms_at_s = [1]\n{}",
                group("clients = 1")
            ),
            "churn: it needs one of",
        ),
        (
            format!(
                "[churn]\ngroup = \"g\"\nstorms_at_s = [2, 1]\n{}",
                group("clients = 1")
            ),
            "each storm is later",
        ),
        (
            format!(
                "[churn]\ngroup = \"g\"\nstorms_at_s = [30]\n{}",
                group("clients = 1")
            ),
            "the measured time ends after 30 seconds",
        ),
        (
            format!("[connect]\nsession_expiry_s = 1\n{}", group("clients = 1")),
            "only protocol \"5.0\"",
        ),
        (
            format!(
                "[connect]\nusername = \"a\"\npassword = \"***\"\n{}",
                group("clients = 1")
            ),
            "stands for one that was hidden",
        ),
        (
            format!("[connect]\nusername = \"a{{\"\n{}", group("clients = 1")),
            "connect.username: ",
        ),
        (
            format!("[connect]\nper_second = 0.0\n{}", group("clients = 1")),
            "connect.per_second is 0;",
        ),
        (
            format!("[connect]\nin_progress_max = 0\n{}", group("clients = 1")),
            "connect.in_progress_max is 0;",
        ),
        (
            group("clients = 1\nread_bytes_per_second = -1"),
            "group \"g\": read_bytes_per_second is -1; allowed are 0 to 1,000,000,000",
        ),
        (
            format!(
                "[churn]\ngroup = \"g\"\nper_second = 1\n{}",
                group("clients = 1\nread_bytes_per_second = 0")
            ),
            "churn.group is \"g\"; clients with read_bytes_per_second do not come back",
        ),
        (
            format!(
                "{}\n[[stream]]\nname = \"m\"\ngroup = \"g\"\ntopic = \"t\"\nper_second = 1\nqos = 1\n",
                group("clients = 1\nread_bytes_per_second = 0")
            ),
            "qos is 1; group \"g\" has read_bytes_per_second",
        ),
        (
            format!("[run]\nseconds = 1e9\n{}", group("clients = 1")),
            "run.seconds is 1000000000;",
        ),
    ] {
        let error = planned(&text).expect_err(&text);
        assert!(error.contains(wanted), "{text}\n{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_clients_filters_must_not_overlap_on_a_topic() {
    for (topic, topics, one, other, overlaps) in [
        ("a/{n}", 4, "a/{n}", "a/#", true),
        ("a/{n}", 4, "a/{n}", "a/{n}", true),
        ("a/{n}", 4, "a/{n}", "a/{n/2}", true),
        ("a/{n}", 4, "a/{n}", "a/3", false),
        ("a/{n}", 4, "a/{n}", "a/2", true),
        ("a/{n}", 4, "a/{n}", "b/#", false),
        ("a/{n}", 4, "a/3", "a/2", false),
        ("a/{n}", 4, "a/+", "a/2", true),
        ("a/{n%2}/{n}", 4, "a/0/+", "+/1/#", false),
        ("a/{n%2}/{n}", 4, "a/0/+", "+/+/2", true),
    ] {
        let subscribe = format!("filter = \"{one}\"\n[[group.subscribe]]\nfilter = \"{other}\"");
        let planned = plan_of(1, topic, topics, 3, &subscribe);
        assert_eq!(
            planned.is_err(),
            overlaps,
            "{topic} {one} {other}: {planned:?}"
        );
        if let Err(error) = planned {
            assert!(error.contains("would get topic \"a/"), "{error}");
        }
    }
    let within = plan_of(1, "a/{n}", 4, 2, "filter = \"a/{i%2}\"\ncount = 3");
    assert!(
        within
            .unwrap_err()
            .contains("client \"s-0\" would get topic \"a/0\"")
    );
    // Clients of different groups may.
    let two = planned(
        "[[group]]\nname = \"g\"\nclients = 2\n[[group.subscribe]]\nfilter = \"a/#\"\n\
         [[group]]\nname = \"h\"\nclients = 2\n[[group.subscribe]]\nfilter = \"a/{n}\"\n\
         [[stream]]\nname = \"m\"\ngroup = \"g\"\ntopic = \"a/{n}\"\nper_second = 1\n",
    );
    assert_eq!(relation(&two.unwrap()), "All Own");
}

/// Two groups, `w` of four writers with these subscriptions and their stream, and `o` with another.
fn answered(subscribe: &str, of_others: &str) -> Result<Plan, String> {
    planned(&format!(
        "[[group]]\nname = \"w\"\nclients = 4\n{subscribe}\n\
         [[group]]\nname = \"o\"\nclients = 2\n{of_others}\n\
         [[stream]]\nname = \"m\"\ngroup = \"w\"\ntopic = \"rooms/{{n}}\"\ntopics = 8\nqos = 1\nper_second = 1\n\
         payload = '{{\"id\":\"{{stamp}}\"}}'\n\
         [[stream]]\nname = \"other\"\ngroup = \"o\"\ntopic = \"o/{{n}}\"\nper_second = 1\n"
    ))
}

const ANSWERS: &str =
    "[[group.subscribe]]\nfilter = \"users/{n}/receipts\"\nqos = 1\nanswers = \"m\"\n";

#[test]
fn answers_are_owed_to_the_publishers_beside_what_others_get() {
    let reads = "[[group.subscribe]]\nfilter = \"rooms/+\"\n";
    let plan = answered(ANSWERS, reads).unwrap();
    assert_eq!(relation(&plan), "Answers All");
    let audience = &plan.streams[0].audiences[0];
    assert_eq!((audience.group, u8::from(audience.qos)), (0, 1));
    assert!(audience.checked);
    assert_eq!(plan.streams[0].payload_bytes, 9 + 35);
    assert!(plan.streams[1].audiences.is_empty());
    // The smaller QoS is of no meaning here: the answer is another message.
    let plan = answered(&ANSWERS.replace("qos = 1", "qos = 2"), "").unwrap();
    assert_eq!(u8::from(plan.streams[0].audiences[0].qos), 2);
}

#[test]
fn answers_that_nobody_could_reckon_with_are_refused() {
    let other = |filter: &str| format!("[[group.subscribe]]\nfilter = \"{filter}\"\n");
    let both = "the group gets that stream by \"rooms/0\" already";
    for (subscribe, of_others, wanted) in [
        (
            ANSWERS.replace("\"m\"", "\"x\""),
            String::new(),
            "group \"w\": subscribe \"users/{n}/receipts\": answers is \"x\"; there is no such stream, but \"m\", \"other\"",
        ),
        (
            ANSWERS.replace("\"m\"", "\"other\""),
            String::new(),
            "answers is \"other\"; group \"o\" publishes that stream",
        ),
        (
            String::new(),
            ANSWERS.to_owned(),
            "answers is \"m\"; group \"w\" publishes that stream",
        ),
        (
            format!("{ANSWERS}share = \"s\"\n").replace("{n}", "x"),
            String::new(),
            "share: answers go to whoever published",
        ),
        (
            format!("{ANSWERS}count = 2\n").replace("{n}", "{n}/{i}"),
            String::new(),
            "count is 2; a subscription with answers has one filter",
        ),
        (
            ANSWERS.replace("{n}", "+"),
            String::new(),
            "each publisher needs answers of its own: put {n} in",
        ),
        (
            ANSWERS.replace("{n}", "{n%2}"),
            String::new(),
            "each publisher needs answers of its own: put {n} in",
        ),
        (
            ANSWERS.replace("users/{n}/receipts", "o/{n}/#"),
            String::new(),
            "the filter matches topics of stream \"other\" (\"o/{n}\")",
        ),
        (
            format!("{}{ANSWERS}", other("rooms/0")),
            String::new(),
            both,
        ),
        (
            format!("{ANSWERS}{}", other("rooms/0")),
            String::new(),
            "it gets stream \"m\", whose answers the group gets by \"users/{n}/receipts\"",
        ),
        (
            format!("{ANSWERS}{}", ANSWERS.replace("users", "again")),
            String::new(),
            "the group gets that stream by \"users/{n}/receipts\" already",
        ),
    ] {
        let error = answered(&subscribe, &of_others).expect_err(&subscribe);
        assert!(error.contains(wanted), "{subscribe}{of_others}\n{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn answers_to_clients_that_come_back_without_a_session_need_not_arrive() {
    for (connect, checked) in [("clean_start = true", false), ("clean_start = false", true)] {
        let churn = "[churn]\ngroup = \"w\"\nper_second = 1\n";
        let plan = answered(ANSWERS, &format!("{churn}[connect]\n{connect}\n")).unwrap();
        assert_eq!(plan.streams[0].audiences[0].checked, checked, "{connect}");
    }
}

#[test]
fn a_share_gets_all_topics_or_none() {
    let error = plan_of(1, "a/{n}", 3, 2, "filter = \"a/1\"\nshare = \"x\"").unwrap_err();
    assert!(
        error.contains("a share has to match all of them or none"),
        "{error}"
    );
}

#[test]
fn matching_that_takes_too_much_is_refused() {
    for (topics, subscribers, subscribe) in [
        // Filters.
        (8, 3_000_000, "filter = \"a/{n}/{i}\"\ncount = 10"),
        // Receivers.
        (5_000, 100_000, "filter = \"a/{i}/0\"\ncount = 4000"),
    ] {
        let error = plan_of(1, "a/{n}/{n%1}", topics, subscribers, subscribe).unwrap_err();
        assert!(
            error.contains("more than 20,000,000 filters, topics and receivers"),
            "{error}"
        );
    }
}

#[test]
fn ten_million_clients_are_planned_without_rendering_them() {
    let plan = plan_of(
        10_000_000,
        "a/{n}/x",
        10_000_000,
        10_000_000,
        "filter = \"a/{n}/+\"",
    )
    .unwrap();
    assert_eq!(relation(&plan), "Own");
}

/// A churned group of subscribers under these settings.
fn churned(connect: &str, qos: u8, retain: bool) -> Result<Plan, String> {
    planned(&format!(
        "[connect]\n{connect}\n\
         [[group]]\nname = \"p\"\nclients = 1\n[[group]]\nname = \"s\"\nclients = 2\n\
         [[group.subscribe]]\nfilter = \"a\"\nqos = {qos}\n\
         [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"a\"\nqos = 1\nretain = {retain}\nper_second = 1\n\
         [churn]\ngroup = \"s\"\nper_second = 1\n"
    ))
}

#[test]
fn churned_clients_must_get_everything_only_with_a_session() {
    for (connect, qos, checked) in [
        ("clean_start = true", 1, false),
        ("clean_start = false", 1, true),
        ("clean_start = false", 0, false),
        ("clean_start = false\nprotocol = \"5.0\"", 1, false),
        (
            "clean_start = false\nprotocol = \"5.0\"\nsession_expiry_s = 9",
            1,
            true,
        ),
    ] {
        let plan = churned(connect, qos, false).unwrap();
        assert_eq!(
            plan.streams[0].audiences[0].checked, checked,
            "{connect} {qos}"
        );
    }
    assert!(churned("clean_start = false", 1, true).is_ok());
    let error = churned("clean_start = true", 1, true).unwrap_err();
    assert!(error.contains("again with each return"), "{error}");
}

#[test]
fn what_a_cut_publisher_sent_with_qos_0_need_not_arrive() {
    for (abruptly, checked) in [(true, false), (false, true)] {
        let plan = planned(&format!(
            "[[group]]\nname = \"p\"\nclients = 1\n[[group]]\nname = \"s\"\nclients = 2\n\
             [[group.subscribe]]\nfilter = \"a\"\n\
             [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"a\"\nper_second = 1\n\
             [churn]\ngroup = \"p\"\nper_second = 1\nabruptly = {abruptly}\n"
        ))
        .unwrap();
        assert_eq!(plan.streams[0].audiences[0].checked, checked);
    }
}

/// A late group of readers of a stream with `once`, and of another stream.
fn late(subscribe: &str, once: &str, more: &str) -> Result<Plan, String> {
    planned(&format!(
        "[[group]]\nname = \"p\"\nclients = 2\n\
         [[group]]\nname = \"s\"\nclients = 2\nlate = true\n[[group.subscribe]]\n{subscribe}\n\
         [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"a/{{n}}\"\nqos = 1\nonce = true\nwindow = 1\n{once}\n{more}"
    ))
}

#[test]
fn a_late_group_gets_what_is_retained() {
    let all = "filter = \"a/#\"";
    assert_eq!(relation(&late(all, "retain = true", "").unwrap()), "All");
    assert_eq!(relation(&late(all, "", "").unwrap()), "");
    let share = "filter = \"a/#\"\nshare = \"x\"";
    assert_eq!(relation(&late(share, "retain = true", "").unwrap()), "");

    let error = late(all, "retain = true\ntopics = 1", "").unwrap_err();
    assert!(
        error.contains("several publishers share a topic"),
        "{error}"
    );
    let other = |topic: &str, pace: &str| {
        format!(
            "[[stream]]\nname = \"o\"\ngroup = \"p\"\ntopic = \"{topic}\"\nqos = 1\nwindow = 1\nretain = true\n{pace}\n"
        )
    };
    let error = late(all, "retain = true", &other("a/{n}", "once = true")).unwrap_err();
    assert!(
        error.contains("stream \"m\" may retain on the same topics"),
        "{error}"
    );
    assert!(late(all, "retain = true", &other("a/x{n}", "once = true")).is_ok());
    assert!(late(all, "retain = true", &other("a/{n}", "per_second = 1")).is_ok());

    let waits = late(all, "retain = true", "").unwrap();
    assert!(waits.groups[1].late && waits.streams[0].pace == Pace::Once);
    let error = planned(
        "[[group]]\nname = \"p\"\nclients = 2\nlate = true\n\
         [[stream]]\nname = \"m\"\ngroup = \"p\"\ntopic = \"a\"\nqos = 1\nonce = true\nwindow = 1\n",
    )
    .unwrap_err();
    assert!(error.contains("group \"p\" is late"), "{error}");
}
