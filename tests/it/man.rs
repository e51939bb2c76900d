//! `man`: pages that man can show.

use std::process::Command;

use crate::support::World;

#[test]
fn every_command_has_a_page_with_its_options_and_examples() {
    let world = World::new();
    let made = world.run(&["man", "--dir", "pages", "--json"]);
    assert_eq!(made.code(), Some(0), "{made:?}");
    let pages = made.json()["pages"].as_array().unwrap().len();
    assert_eq!(std::fs::read_dir(world.path("pages")).unwrap().count(), pages);
    assert!(pages > 20, "{pages}");
    for (page, word) in
        [("jellyjar", "refilter"), ("jellyjar-find", "same\\-as"), ("jellyjar-config-check", "Examples")]
    {
        let text = std::fs::read_to_string(world.path(&format!("pages/{page}.1"))).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")), "{page}: {text}");
        assert!(text.contains(word), "{page}: {text}");
    }
    assert!(world.run(&["man"]).stdout.contains(".TH jellyjar 1"));
}

#[test]
fn man_renders_a_page_where_it_is_installed() {
    let world = World::new();
    std::fs::write(world.path("jellyjar.1"), world.run(&["man"]).stdout).unwrap();
    let shown =
        Command::new("man").args(["-l", "jellyjar.1"]).current_dir(world.path("")).env("MANPAGER", "cat").output();
    // Not every machine has it; the header is looked at by the other test.
    if let Some(shown) = shown.ok().filter(|shown| shown.status.success()) {
        assert!(String::from_utf8_lossy(&shown.stdout).contains("Archives every email attachment"), "{shown:?}");
    }
}
