# Constant requests by four workers, every second one with a body, until the file is gone: `FAILED` and `SLOW` as they
# come, `ASKED` and how many at the end. Takes the file and where each worker writes.
use IO::Socket::INET;
my ($stop, $out) = @ARGV; open(my $touch, ">", $stop); close $touch;
for my $w (1 .. 4) {
  next if fork;
  my ($n, $bad) = (0, 0); open(my $log, ">", "$out.$w");
  while (-e $stop) {
    $n++; my $body = $n % 2 ? "" : "score=$n"; my $method = $body ? "POST" : "GET"; my $begin = time;
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 18090, Timeout => 20);
    my $answer = "";
    if ($s) { print $s "$method /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ".length($body)."\r\n\r\n$body"; local $/; $answer = <$s> // ""; close $s }
    my ($first) = $answer =~ /^(.*?)\r/;
    my $took = time - $begin;
    if ($answer !~ /^HTTP\/1.1 200 .*\r\n\r\nok\n/s) { $bad++; printf $log "FAILED %s %d %s\n", $method, $took, $first // "nothing" }
    elsif ($took > 1) { printf $log "SLOW %s %d\n", $method, $took }
    select(undef, undef, undef, 0.01);
  }
  print $log "ASKED $n\n"; exit 0;
}
1 while wait != -1;
