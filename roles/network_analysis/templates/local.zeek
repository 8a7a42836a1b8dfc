# Managed by soc-provision (role network_analysis).
@load base/frameworks/notice
@load policy/protocols/conn/community-id-logging
@load policy/protocols/ssh/detect-bruteforcing
@load policy/protocols/ssl/validate-certs
@load policy/frameworks/files/hash-all-files
@load policy/tuning/json-logs
redef LogAscii::use_json = T;
redef Log::default_rotation_interval = 1hr;
redef Site::local_nets += { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 };
