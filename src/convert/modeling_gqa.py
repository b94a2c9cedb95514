"""Llama and Mistral models whose layers have different numbers of KV heads, or unequal groups.

transformers has no such models of its own: its Llama and Mistral have one num_key_value_heads. This
file came with a checkpoint that `gqa` wrote; AutoModelForCausalLM.from_pretrained() uses it with
trust_remote_code=True. Tested with transformers 5.23. What config.json has of its own:

  num_key_value_heads  a list, with an entry for each layer
  gqa_group_sizes      for each layer, how many query heads each KV head has, in order; null: the
                       same number each
"""

import copy

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral


class PerLayerConfig:
    """What both configs add to their family's."""

    base_model_tp_plan = None  # tensor parallelism would cut groups

    def layer_kv_heads(self):
        heads = self.num_key_value_heads
        return heads if isinstance(heads, list) else [heads] * self.num_hidden_layers

    def layer_group_sizes(self):
        return self.gqa_group_sizes or [None] * self.num_hidden_layers

    @property
    def per_layer_config(self):
        """A config for each layer, as caches ask for them."""
        layers = []
        for heads in self.layer_kv_heads():
            layer = copy.copy(self)
            layer.num_key_value_heads = heads
            layers.append(layer)
        return layers

    def validate_architecture(self):
        super().validate_architecture()
        heads, sizes = self.layer_kv_heads(), self.layer_group_sizes()
        if len(heads) != self.num_hidden_layers or len(sizes) != self.num_hidden_layers:
            raise ValueError("num_key_value_heads or gqa_group_sizes: expected an entry per layer")
        for layer, (n, groups) in enumerate(zip(heads, sizes)):
            groups = groups or [self.num_attention_heads // n] * n
            if len(groups) != n or sum(groups) != self.num_attention_heads or min(groups) < 1:
                raise ValueError(
                    f"layer {layer}: groups {groups} do not part {self.num_attention_heads} query "
                    f"heads among {n} KV heads"
                )


@strict
class GqaLlamaConfig(PerLayerConfig, LlamaConfig):
    model_type = "gqa_llama"
    num_key_value_heads: int | list[int] | None = None
    gqa_group_sizes: list[list[int] | None] | None = None


@strict
class GqaMistralConfig(PerLayerConfig, MistralConfig):
    model_type = "gqa_mistral"
    num_key_value_heads: int | list[int] | None = 8
    gqa_group_sizes: list[list[int] | None] | None = None


class PerLayerAttention:
    """The family's attention with KV heads, and groups, of its own layer."""

    family = None  # transformers' module

    def __init__(self, config, layer_idx):
        super().__init__(config.per_layer_config[layer_idx], layer_idx)
        self.config = config
        sizes = config.layer_group_sizes()[layer_idx]
        self.group_sizes = sizes if sizes and len(set(sizes)) > 1 else None
        if self.group_sizes:
            self.num_key_value_groups = 1  # KV heads are repeated here, not by what is called

    def repeat(self, heads):
        """[batch, kv_heads, tokens, head_dim] to [batch, q_heads, tokens, head_dim]."""
        return heads[:, [g for g, n in enumerate(self.group_sizes) for _ in range(n)]]

    def forward(
        self, hidden_states, position_embeddings, attention_mask, past_key_values=None, **kwargs
    ):
        shape = hidden_states.shape[:-1]
        q, k, v = (
            project(hidden_states).view(*shape, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.family.apply_rotary_pos_emb(q, k, *position_embeddings)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        if self.group_sizes:
            k, v = self.repeat(k), self.repeat(v)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, self.family.eager_attention_forward
        )
        out, weights = attend(
            self,
            q,
            k,
            v,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **self.window(),
            **kwargs,
        )
        return self.o_proj(out.reshape(*shape, -1).contiguous()), weights


class GqaLlamaAttention(PerLayerAttention, modeling_llama.LlamaAttention):
    family = modeling_llama

    def window(self):
        return {}


class GqaMistralAttention(PerLayerAttention, modeling_mistral.MistralAttention):
    family = modeling_mistral

    def window(self):
        return {"sliding_window": self.config.sliding_window}


class PerLayerForCausalLM:
    """The family's model; its layers are made here."""

    make_layer = make_attention = None

    def __init__(self, config):
        n_layers = config.num_hidden_layers
        config.num_hidden_layers = 0
        super().__init__(config)
        config.num_hidden_layers = n_layers
        self.model.layers = nn.ModuleList(self.layer(config, i) for i in range(n_layers))
        self.post_init()

    def layer(self, config, layer_idx):
        layer = self.make_layer(config.per_layer_config[layer_idx], layer_idx)
        layer.self_attn = self.make_attention(config, layer_idx)
        return layer


class GqaLlamaForCausalLM(PerLayerForCausalLM, LlamaForCausalLM):
    config_class = GqaLlamaConfig
    make_layer = modeling_llama.LlamaDecoderLayer
    make_attention = GqaLlamaAttention


class GqaMistralForCausalLM(PerLayerForCausalLM, MistralForCausalLM):
    config_class = GqaMistralConfig
    make_layer = modeling_mistral.MistralDecoderLayer
    make_attention = GqaMistralAttention
