"""Examples of each command, which its `--help` shows."""

from __future__ import annotations

EXAMPLES: dict[str, str] = {
    "demo": "tensordelta demo --steps 3",
    "completion": """\
eval "$(tensordelta completion bash)"
tensordelta completion fish --install""",
    "publish": """\
tensordelta publish run-1 step_0.safetensors --step 0
tensordelta publish run-1 step_1.safetensors --step 1 --annotation loss=0.7
tensordelta publish hf://buckets/OWNER/NAME/run-1 output/checkpoint-500
tensordelta publish run-1 hf://ORG/MODEL@main --plain
tensordelta publish run-2 --watch output --marker COMPLETE""",
    "shortcut": """\
tensordelta shortcut run-1 0 1
tensordelta shortcut run-1 full 1""",
    "log": """\
tensordelta log run-1
tensordelta log run-1 --pins --shortcuts --layout""",
    "ls": """\
tensordelta ls run-1
tensordelta ls run-1@0 'layers.0.*' embed
tensordelta ls hf://ORG/MODEL""",
    "show": """\
tensordelta show run-1
tensordelta show run-1 1 --json""",
    "diff": """\
tensordelta diff run-1@0 run-1@newest
tensordelta diff run-1@-2 run-1@-1
tensordelta diff run-1 step_1.safetensors
tensordelta diff hf://ORG/MODEL@v1.0 hf://ORG/MODEL@main""",
    "plan": """\
tensordelta plan run-1
tensordelta plan run-1 --from 0 --to 1""",
    "pull": """\
tensordelta pull run-1 model
tensordelta pull run-1 model --to 0
tensordelta pull hf://buckets/OWNER/NAME/run-1 model --follow --exec 'reload "$TENSORDELTA_FOLDER"'""",
    "verify": """\
tensordelta verify run-1
tensordelta verify run-1 --deep
tensordelta verify model""",
    "vllm-follow": "tensordelta vllm-follow hf://buckets/OWNER/NAME/run-1 --server http://localhost:8000",
    "sglang-follow": "tensordelta sglang-follow hf://buckets/OWNER/NAME/run-1 --server http://localhost:30000",
    "import": """\
tensordelta import trl hf://buckets/OWNER/NAME/weights run-2
tensordelta import slime updates run-2 --base model --follow""",
    "export": """\
tensordelta export slime run-1 updates
tensordelta export trl run-1 hf://buckets/OWNER/NAME/weights --follow""",
    "gc": """\
tensordelta gc run-1 --keep-last 2 --dry-run
tensordelta gc run-1 --keep-last 2 --keep-every 100""",
    "pin": """\
tensordelta pin run-1 1 best
tensordelta pin run-1 1 evaluation --expires 86400""",
    "unpin": "tensordelta unpin run-1 best",
    "copy": """\
tensordelta copy run-1 backup
tensordelta copy run-1 s3://BUCKET/run-1 --from 0 --to 1""",
    "keygen": "tensordelta keygen run.key",
    "sign": "tensordelta sign run-1 --key run.key",
}
