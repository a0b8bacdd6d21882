package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace/drivers/opcua"
	"millrace/gateway/config"
)

// newOPCUA holds the commands for people who connect OPC UA servers. They need no running gateway.
func newOPCUA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "opcua",
		Short: "See what an OPC UA server offers, holds and tells, write and call, simulate one, and say which certificates to trust",
		Example: `  millrace opcua endpoints opc.tcp://192.168.1.20:4840
  millrace opcua browse opc.tcp://192.168.1.20:4840 --depth 2
  millrace opcua read opc.tcp://192.168.1.20:4840 "ns=2;s=Spindle.Speed"
  millrace opcua trust ls
  millrace opcua trust add 3f2a91c0
  millrace opcua simulate --fault silent@30s-1m10s`,
	}
	var pki pkiFlags
	pki.add(cmd)
	cmd.AddCommand(newOffers(), newBrowse(&pki), newTrust(&pki), newOPCUAFind(), newOPCUARead(&pki), newOPCUAWatch(&pki), newOPCUAHistory(&pki), newOPCUAEvents(&pki), newOPCUASimulate(), newOPCUAWrite(&pki), newOPCUACall(&pki))
	return cmd
}

func newOffers() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "endpoints URL",
		Short:   "Show the security policies, modes and kinds of users that a server offers",
		Example: "  millrace opcua endpoints opc.tcp://192.168.1.20:4840",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			offers, err := opcua.Offers(cmd.Context(), args[0], timeout)
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return printOffers(cmd.OutOrStdout(), offers)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "of each step")
	return cmd
}

func printOffers(out io.Writer, offers []opcua.Offer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SECURITY_POLICY\tSECURITY_MODE\tUSERS")
	for _, o := range offers {
		fmt.Fprintf(w, "%.100s\t%s\t%s\n", clean(o.Policy), o.Mode, o.Users)
	}
	shown := map[string]bool{}
	for _, o := range offers {
		if c := o.Certificate; c != nil && !shown[opcua.Thumbprint(c.Raw)] {
			shown[opcua.Thumbprint(c.Raw)] = true
			fmt.Fprintf(w, "\ncertificate %.100q, valid to %s, for %.200q\nthumbprint %s\n", c.Subject.CommonName, c.NotAfter.UTC().Format(time.DateOnly), o.Server, opcua.Thumbprint(c.Raw))
		}
	}
	return w.Flush()
}

// pkiFlags say where the certificates are.
type pkiFlags struct {
	config, path string
	chosen       func() bool // --config is given
}

func (f *pkiFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&f.config, "config", "c", "millrace.yaml", "config file; its pki.path is the folder of certificates")
	cmd.PersistentFlags().StringVar(&f.path, "pki", "", "folder of certificates, instead of the config's")
	f.chosen = func() bool { return cmd.PersistentFlags().Changed("config") }
}

// pki returns the certificates that the gateway of the config uses, also where the rest of it has mistakes; without a config those beside us.
func (f *pkiFlags) pki() (opcua.PKI, error) {
	if f.path != "" {
		return opcua.PKI{Path: f.path}, nil
	}
	path, err := config.PKIPath(f.config, protocols(), config.Options{})
	if _, missing := os.Stat(f.config); errors.Is(missing, fs.ErrNotExist) && f.chosen() {
		return opcua.PKI{}, err
	}
	return opcua.PKI{Path: path}, nil
}

func newTrust(flags *pkiFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "List, trust and remove the certificates of OPC UA servers",
		Long: `Work on the folder of certificates that a config names (pki.path). A server whose certificate is not trusted is refused, and its
certificate is put into rejected/. Compare the thumbprint with what the server itself shows before you trust it.`,
		Example: `  millrace opcua trust ls
  millrace opcua trust add 3f2a91c0
  millrace opcua trust add plant-ca.pem
  millrace opcua trust remove 3f2a91c0`,
	}
	cmd.AddCommand(&cobra.Command{
		Use: "ls", Short: "List all certificates", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pki, err := flags.pki()
			if err == nil {
				err = listTrust(cmd.OutOrStdout(), pki)
			}
			return failed(err)
		},
	}, &cobra.Command{
		Use: "add THUMBPRINT|FILE", Short: "Trust a rejected certificate, by the begin of its thumbprint, or the one in a file",
		Example: "  millrace opcua trust add 3f2a91c0", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pki, err := flags.pki()
			if err != nil {
				return failed(err)
			}
			c, err := pki.Trust(args[0])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "trusted from the next connect on: %.100q, thumbprint %s\n", c.Subject.CommonName, opcua.Thumbprint(c.Raw))
			}
			return failed(err)
		},
	}, &cobra.Command{
		Use: "remove THUMBPRINT", Short: "Remove a trusted or rejected certificate, by the begin of its thumbprint",
		Example: "  millrace opcua trust remove 3f2a91c0", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pki, err := flags.pki()
			if err != nil {
				return failed(err)
			}
			c, err := pki.Remove(args[0])
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "removed from %s/: %.100q; a session that is open stays open\n", c.Folder, c.Subject.CommonName)
			}
			return failed(err)
		},
	})
	return cmd
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitFailed, err}
}

func listTrust(out io.Writer, pki opcua.PKI) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FOLDER\tTHUMBPRINT\tVALID TO\tNAME")
	var errs []error
	for _, folder := range []string{"own", "trusted", "issuers", "rejected"} {
		all, err := pki.List(folder)
		errs = append(errs, err)
		for _, c := range all {
			if folder == "own" && c.File != "millrace.der" {
				continue // the same again, with its key
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%.100q\n", folder, opcua.Thumbprint(c.Raw), c.NotAfter.UTC().Format(time.DateOnly), c.Subject.CommonName)
		}
	}
	errs = append(errs, w.Flush())
	for _, line := range pki.PassedOver() {
		fmt.Fprintln(out, line)
	}
	return errors.Join(errs...)
}

// clean leaves the printable ASCII of a text that a server chose: a terminal must not be told what to do.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
