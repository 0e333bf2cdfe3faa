//! Every command that there is.

use std::collections::BTreeSet;

use crate::support::{farebox, run};

/// The commands as the help lists them: `keys issue`, …
pub async fn commands() -> BTreeSet<String> {
    let (mut groups, mut commands) = (vec![String::new()], BTreeSet::new());
    while let Some(group) = groups.pop() {
        let arguments: Vec<&str> = group.split_whitespace().chain(["--help"]).collect();
        let (code, help, _) = run(farebox(&arguments, &[])).await;
        assert_eq!(code, 0, "{arguments:?}");
        let Some((_, below)) = help.split_once("\nCommands:\n") else {
            commands.insert(group);
            continue;
        };
        let names = below.lines().take_while(|line| !line.is_empty());
        let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names = names.filter(|name| !name.is_empty() && *name != "help");
        groups.extend(names.map(|name| format!("{group} {name}").trim().to_owned()));
    }
    commands
}
