//! `completions`: a real shell takes them, and they know the commands.

use std::process::Command;

use crate::support::World;

#[test]
fn bash_takes_the_completions_and_completes_a_command() {
    let world = World::new();
    let script = world.run(&["completions", "bash"]);
    assert_eq!(script.code(), Some(0), "{script:?}");
    std::fs::write(world.path("c.bash"), &script.stdout).unwrap();
    let test = "set -eu; . ./c.bash; complete -p jellyjar; COMP_WORDS=(jellyjar ref); COMP_CWORD=1; \
                COMPREPLY=(); _jellyjar jellyjar ref jellyjar; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["--norc", "-c", test]).current_dir(world.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("-F _jellyjar") && text.trim_end().ends_with("refilter"), "{text}");
}

#[test]
fn every_shell_has_its_completions_and_another_is_refused() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = world.run(&["completions", shell]);
        assert!(script.code() == Some(0) && script.stdout.contains("quarantined"), "{shell}");
    }
    assert_eq!(world.run(&["completions", "dos"]).code(), Some(2));
}
