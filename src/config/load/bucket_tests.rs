//! Tests of what is read and checked for archives in buckets.

use std::collections::BTreeMap;

use super::tests::Place;
use super::*;
use crate::model::{Location, Provider};

const S3: (&str, &str) = ("JELLYJAR_ARCHIVE", "s3://mail/team");

/// What the client of the common archive's bucket is told.
fn options(loaded: &Loaded) -> BTreeMap<&'static str, String> {
    let bucket = loaded.config.archive.as_ref().and_then(Location::bucket).unwrap();
    let options = loaded.config.buckets.options(bucket);
    let count = options.len();
    let options: BTreeMap<_, _> = options.into_iter().map(|(key, value)| (key, value.expose().to_owned())).collect();
    assert_eq!(options.len(), count, "a key stands twice in {:?}", options.keys());
    options
}

fn load(place: &Place, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let home = place.path("home");
    let mut all = vec![("HOME", home.to_str().unwrap())];
    all.extend(variables);
    place.load(&Overrides::default(), &all)
}

fn get<'a>(options: &'a BTreeMap<&str, String>, key: &str) -> Option<&'a str> {
    options.get(key).map(String::as_str)
}

const CREDENTIALS: &str = "[default]\naws_access_key_id = ID-D\naws_secret_access_key = S-D\n\
    [work]\naws_access_key_id = ID-W\naws_secret_access_key = S-W\naws_session_token = T-W\n";
const CONFIG: &str = "[default]\nregion = default-1\n[profile work]\nregion = work-1\nendpoint_url = http://localhost:9/\n\
    [profile sso]\nsso_session = corp\nregion = sso-1\n";

fn place(toml: &str) -> Place {
    Place::new(&[("jellyjar.toml", toml), ("home/.aws/credentials", CREDENTIALS), ("home/.aws/config", CONFIG)])
}

#[test]
fn buckets_of_the_file_are_no_paths_and_keep_their_spelling() {
    let text =
        "archive = \"S3://mail/a/\"\n[teams.a]\narchive = \"gs://other\"\n[teams.b]\narchive = \"here\"\n[teams.c]\n";
    let place = place(text);
    let loaded = load(&place, &[]).unwrap();
    let archive = |team| loaded.config.archive_for(team).unwrap().to_string();
    assert_eq!((archive("a"), archive("c")), ("gs://other".into(), "s3://mail/a".into()));
    assert_eq!(archive("b"), place.path("here").to_str().unwrap());
}

#[test]
fn a_place_that_is_none_is_blamed_on_who_gave_it() {
    let place = Place::new(&[]);
    let flags = Overrides { archive: Some("ftp://x".into()), ..Overrides::default() };
    let error = place.load(&flags, &[]).unwrap_err().to_string();
    assert!(error.starts_with("--archive: \"ftp\" is no kind of place"), "{error}");
    let error = place.refusal(&[("JELLYJAR_ARCHIVE", "s3://key:hush@mail")]);
    assert!(error.starts_with("environment variable JELLYJAR_ARCHIVE: ") && !error.contains("hush"), "{error}");
    let text = "[teams.a]\narchive = \"s3://\"\n";
    let error = Place::new(&[("jellyjar.toml", text)]).refusal(&[]);
    assert!(error.contains("jellyjar.toml:2: `teams.a.archive`: "), "{error}");
}

#[test]
fn two_teams_cannot_have_one_name_in_one_bucket() {
    let text =
        |other| format!("archive = \"s3://m/x\"\n[teams.a]\n[teams.b]\narchive_key = \"a\"\narchive = \"{other}\"\n");
    let error = load(&place(&text("s3://m/x/")), &[]).unwrap_err().to_string();
    assert!(error.contains("`a` and `b` are both `a` in the same archive"), "{error}");
    assert!(load(&place(&text("s3://m/y")), &[]).is_ok());
}

#[test]
fn nothing_of_a_provider_is_read_for_an_archive_elsewhere() {
    let place = Place::new(&[("home/.aws/credentials", "[broken")]);
    let variables = [("AWS_ACCESS_KEY_ID", "ID"), ("AZURE_STORAGE_KEY", "k"), ("AWS_PROFILE", "nowhere")];
    for archive in ["/srv/archive", "gs://mail"] {
        let loaded = load(&place, &[&variables[..], &[("JELLYJAR_ARCHIVE", archive)]].concat()).unwrap();
        assert!(loaded.config.buckets.environment.is_empty() && loaded.config.buckets.profile.is_none());
    }
    assert!(load(&place, &[S3]).is_err());
}

#[test]
fn the_environments_keys_go_over_its_profile_but_not_over_the_files() {
    let keys = [S3, ("AWS_ACCESS_KEY_ID", "ID-E"), ("AWS_SECRET_ACCESS_KEY", "S-E"), ("AWS_SESSION_TOKEN", "")];
    let token = ("AWS_SESSION_TOKEN", "T-E");
    let profile = ("AWS_PROFILE", "work");
    for (toml, variables, id, session, region) in [
        ("", &[S3][..], "ID-D", None, "default-1"),
        ("", &[S3, token], "ID-D", None, "default-1"),
        ("", &[S3, profile], "ID-W", Some("T-W"), "work-1"),
        ("", &keys, "ID-E", None, "default-1"),
        ("", &[keys[0], keys[1], keys[2], token, profile], "ID-E", Some("T-E"), "work-1"),
        ("[s3]\nprofile = \"work\"\n", &keys, "ID-W", Some("T-W"), "work-1"),
        ("[s3]\nprofile = \"default\"\n", &[S3, profile, ("AWS_ROLE_ARN", "r")], "ID-D", None, "default-1"),
        ("[s3]\nregion = \"file-1\"\n", &[S3, ("AWS_REGION", "e-1")], "ID-D", None, "file-1"),
        ("", &[S3, ("AWS_REGION", "e-1"), ("AWS_DEFAULT_REGION", "e-2")], "ID-D", None, "e-1"),
        ("", &[S3, ("AWS_DEFAULT_REGION", "e-2")], "ID-D", None, "e-2"),
    ] {
        let loaded = load(&place(toml), variables).unwrap();
        let options = options(&loaded);
        let found = ["aws_access_key_id", "aws_session_token", "aws_region"].map(|key| get(&options, key));
        assert_eq!(found, [Some(id), session, Some(region)], "{toml} {variables:?}");
        assert_eq!(get(&options, "aws_secret_access_key").unwrap()[1..], id[2..]);
        assert!(!options.contains_key("aws_role_arn"));
        assert!(!format!("{loaded:?}").contains("S-"), "{loaded:?}");
    }
}

#[test]
fn an_endpoint_comes_from_the_file_then_from_variables_then_from_the_profile() {
    let specific = ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2");
    let general = ("AWS_ENDPOINT_URL", "http://127.0.0.1:3");
    let (profile, ignore) = (("AWS_PROFILE", "work"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"));
    for (toml, variables, expected) in [
        ("[s3]\nendpoint = \"http://[::1]:1/\"\n", &[S3, specific, general, profile][..], Some("http://[::1]:1")),
        ("", &[S3, specific, general, profile], Some("http://127.0.0.1:2")),
        ("", &[S3, general, profile], Some("http://127.0.0.1:3")),
        ("", &[S3, profile], Some("http://localhost:9")),
        ("", &[S3, general, profile, ignore], None),
        ("", &[S3], None),
    ] {
        let loaded = load(&place(toml), variables).unwrap();
        let options = options(&loaded);
        assert_eq!(get(&options, "aws_endpoint"), expected, "{toml} {variables:?}");
        assert_eq!(loaded.config.buckets.is_plain_http(Provider::S3), expected.is_some());
    }
}

#[test]
fn a_profile_without_keys_is_refused_with_a_way_out_unless_others_are_there() {
    let profile = ("AWS_PROFILE", "sso");
    let error = load(&place(""), &[S3, profile]).unwrap_err().to_string();
    assert!(error.contains(".aws/config: the AWS profile \"sso\" gets its credentials by `sso_session`"), "{error}");
    assert!(error.contains("export-credentials --profile sso --format env"), "{error}");
    let identity = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")];
    let keys = [("AWS_ACCESS_KEY_ID", "ID"), ("AWS_SECRET_ACCESS_KEY", "S")];
    for others in [identity, keys] {
        let loaded = load(&place(""), &[&others[..], &[S3, profile]].concat()).unwrap();
        let options = options(&loaded);
        assert_eq!(get(&options, "aws_region"), Some("sso-1"));
        assert_eq!(options.contains_key("aws_role_arn"), others == identity);
        assert!(load(&place("[s3]\nprofile = \"sso\"\n"), &[&others[..], &[S3]].concat()).is_err());
    }
}

#[test]
fn half_a_key_or_none_where_there_can_be_no_role_is_refused() {
    let error = load(&place(""), &[S3, ("AWS_SECRET_ACCESS_KEY", "hush")]).unwrap_err();
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY: it is set without AWS_ACCESS_KEY_ID"), "{error}");
    assert!(!format!("{error:?}").contains("hush"));
    let nothing = Place::new(&[]);
    assert!(load(&nothing, &[S3]).is_ok());
    let error = load(&nothing, &[S3, ("AWS_EC2_METADATA_DISABLED", "true")]).unwrap_err().to_string();
    assert!(error.contains("there are no credentials for S3"), "{error}");
    let error = load(&nothing, &[S3, ("AWS_PROFILE", "nowhere")]).unwrap_err().to_string();
    assert!(error.contains("no AWS profile \"nowhere\""), "{error}");
}

#[test]
fn a_buckets_name_stands_where_the_server_looks_for_it() {
    for (toml, archive, endpoint, hosted) in [
        ("", "s3://mail", None, "true"),
        ("", "s3://mail.example", None, "false"),
        ("path_style = true", "s3://mail", None, "false"),
        ("endpoint = \"https://s3.example:9000/\"", "s3://mail", Some("https://s3.example:9000"), "false"),
        (
            "endpoint = \"https://s3.example:9000/base\"\npath_style = false",
            "s3://mail",
            Some("https://mail.s3.example:9000/base"),
            "true",
        ),
    ] {
        let loaded =
            load(&Place::new(&[("jellyjar.toml", &format!("[s3]\n{toml}\n"))]), &[("JELLYJAR_ARCHIVE", archive)]);
        let options = options(&loaded.unwrap());
        assert_eq!(get(&options, "aws_endpoint"), endpoint, "{toml}");
        assert_eq!(get(&options, "aws_virtual_hosted_style_request"), Some(hosted), "{toml}");
    }
}

#[test]
fn the_other_providers_are_reached_as_their_variables_say() {
    let none = Place::new(&[]);
    let gcs = [
        ("JELLYJAR_ARCHIVE", "gs://mail"),
        ("SERVICE_ACCOUNT", "/b.json"),
        ("GOOGLE_SERVICE_ACCOUNT", "/a.json"),
        ("GOOGLE_BASE_URL", "http://127.0.0.1:1/"),
    ];
    let loaded = load(&none, &gcs).unwrap();
    let expected = [
        ("google_base_url", "http://127.0.0.1:1".to_owned()),
        ("google_bucket", "mail".to_owned()),
        ("google_service_account", "/a.json".to_owned()),
    ];
    assert_eq!(options(&loaded), BTreeMap::from(expected));
    assert_eq!(loaded.config.buckets.credentials(Provider::Gcs), "the environment (GOOGLE_SERVICE_ACCOUNT)");
    let azure = [
        ("JELLYJAR_ARCHIVE", "az://mail"),
        ("AZURE_STORAGE_ACCOUNT", "archive1"),
        ("AZURE_STORAGE_KEY", "aHVzaA=="),
        ("AZURE_STORAGE_CONNECTION_STRING", "hush"),
    ];
    let loaded = load(&none, &azure).unwrap();
    let expected = [
        ("azure_container_name", "mail".to_owned()),
        ("azure_storage_account_key", "aHVzaA==".to_owned()),
        ("azure_storage_account_name", "archive1".to_owned()),
    ];
    assert_eq!(options(&loaded), BTreeMap::from(expected));
    assert!(loaded.warnings[0].contains("AZURE_STORAGE_CONNECTION_STRING is not read"), "{:?}", loaded.warnings);
    let error = load(&none, &azure[..1]).unwrap_err().to_string();
    assert!(error.contains("no storage account is named"), "{error}");
}

#[test]
fn every_option_is_one_that_the_client_knows() {
    use object_store::{aws::AmazonS3ConfigKey, azure::AzureConfigKey, gcp::GoogleConfigKey};
    let toml = "[s3]\nkms_key_id = \"k\"\nendpoint = \"https://s3.example\"\nregion = \"r\"\n[azure]\naccount = \"abc\"\n\
        endpoint = \"https://az.example\"\n[gcs]\nendpoint = \"https://gcs.example\"\n";
    for (archive, provider) in
        [("s3://mail", Provider::S3), ("gs://mail", Provider::Gcs), ("az://mail", Provider::Azure)]
    {
        let mut variables = vec![("JELLYJAR_ARCHIVE", archive)];
        variables.extend(credentials::variables(provider).iter().map(|(variable, _)| (*variable, "v")));
        let loaded = load(&place(toml), &variables).unwrap();
        let mut keys: std::collections::BTreeSet<_> =
            credentials::variables(provider).iter().map(|(_, key)| *key).collect();
        for key in options(&loaded).keys() {
            keys.remove(key);
            match provider {
                Provider::S3 => drop(key.parse::<AmazonS3ConfigKey>().unwrap()),
                Provider::Gcs => drop(key.parse::<GoogleConfigKey>().unwrap()),
                Provider::Azure => drop(key.parse::<AzureConfigKey>().unwrap()),
            }
        }
        assert!(keys.is_empty(), "{keys:?}");
    }
}

#[test]
fn settings_of_buckets_that_cannot_work_are_refused_where_they_stand() {
    let long = |key: usize, value: usize| format!("[s3.tags]\n{} = \"{}\"\n", "k".repeat(key), "v".repeat(value));
    let many =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|key| format!("tags.{key} = \"v\"\n")).concat();
    for (text, expected) in [
        ("[s3]\nendpoint = \"s3.example:9000\"\n", "toml:2: `s3.endpoint`: only http and https"),
        ("[s3]\nendpoint = \"nonsense\"\n", "toml:2: `s3.endpoint`: this is no URL"),
        ("[s3]\nendpoint = \"https://me:hush@s3.example\"\n", "toml:2: `s3.endpoint`: the URL has a user name"),
        ("[s3]\nendpoint = \"https://s3.example/?sig=hush\"\n", "toml:2: `s3.endpoint`: the URL has a query"),
        ("[s3]\nendpoint = \"http://s3.example\"\n", "toml:2: `s3.endpoint`: this is plain http"),
        ("[gcs]\nendpoint = \"http://10.0.0.1\"\n", "toml:2: `gcs.endpoint`: this is plain http"),
        ("[azure]\nendpoint = \"ftp://x\"\n", "toml:2: `azure.endpoint`: only http"),
        ("[azure]\naccount = \"My_Account\"\n", "toml:2: `azure.account`: this is no name"),
        ("[s3]\nregion = \"\"\n", "toml:2: `s3.region`: this is no name"),
        ("[s3]\nregion = \"x/@evil\"\n", "toml:2: `s3.region`: this is no name"),
        ("[s3]\nkms_key_id = \"a b\"\n", "toml:2: `s3.kms_key_id`: this is no id"),
        ("[s3]\nendpoint = \"http://127.0.0.1:9\"\npath_style = false\n", "toml:3: `s3.path_style`: "),
        (
            "[s3]\nstorage_class = \"DEEP_ARCHIVE\"\n",
            "toml:2: `s3.storage_class`: objects of the class DEEP_ARCHIVE cannot",
        ),
        ("[s3]\nstorage_class = \"glacier\"\n", "toml:2: `s3.storage_class`: objects of the class glacier cannot"),
        ("[s3]\nstorage_class = \"standard_ia\"\n", "toml:2: `s3.storage_class`: this is no storage class"),
        ("[s3]\nobject_lock_mode = \"governance\"\n", "toml:2: `s3.object_lock_mode`: for how long"),
        ("[s3]\nobject_lock_days = 5\n", "toml:2: `s3.object_lock_days`: in which mode"),
        ("[s3]\nobject_lock_messages = true\n", "toml:2: `s3.object_lock_messages`: nothing is locked"),
        ("[s3.tags]\n\"aws:x\" = \"v\"\n", "toml:2: `s3.tags.aws:x`: keys that begin"),
        ("[s3.tags]\nx = \"a&b\"\n", "toml:2: `s3.tags.x`: tags have letters"),
        (&long(129, 1), "a tag's key has 1 to 128"),
        (&long(128, 257), "a tag's value has 256"),
        (&format!("[s3]\n{many}"), "`s3.tags`: there are 11 tags"),
    ] {
        let error = load(&Place::new(&[("jellyjar.toml", text)]), &[S3]).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
    }
    let fine = format!(
        "[s3]\nstorage_class = \"GLACIER_IR\"\nobject_lock_mode = \"compliance\"\nobject_lock_days = 1\n{}",
        long(128, 256)
    );
    assert!(load(&Place::new(&[("jellyjar.toml", &fine)]), &[S3]).is_ok());
}

#[test]
fn what_variables_and_profiles_say_is_checked_like_the_file() {
    let error = load(&place(""), &[S3, ("AWS_ENDPOINT_URL", "http://me:hush@localhost")]).unwrap_err().to_string();
    assert!(error.starts_with("environment variable AWS_ENDPOINT_URL: ") && !error.contains("hush"), "{error}");
    let config = "[default]\nendpoint_url = http://s3.example\n";
    let error = load(&Place::new(&[("home/.aws/config", config)]), &[S3]).unwrap_err().to_string();
    assert!(error.starts_with("AWS profile \"default\" in ") && error.contains("plain http"), "{error}");
}

#[test]
fn settings_that_no_archive_uses_are_warned_of() {
    let text = "[bucket]\nconcurrency = 5\n[spool]\nallow_tmpfs = true\n[s3]\nregion = \"r\"\n[azure]\naccount = \"abc\"\n[gcs]\n";
    let place = place(text);
    let warned = |archive| -> Vec<String> {
        let loaded = load(&place, &[("JELLYJAR_ARCHIVE", archive)]).unwrap();
        loaded.warnings.iter().map(|warning| warning.split('`').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(warned("/srv"), ["bucket.concurrency", "s3.region", "azure.account", "spool.allow_tmpfs"]);
    assert_eq!(warned("s3://mail"), ["azure.account"]);
    assert_eq!(warned("az://mail"), ["s3.region"]);
    assert!(load(&place, &[]).unwrap().warnings.is_empty());
}
