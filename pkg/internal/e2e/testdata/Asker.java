import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.security.cert.*;
import java.util.*;

/**
 * Asks for the status of certificates as Java's own TLS does: PKIX with a revocation checker, OCSP alone, for the whole
 * chain but the root. Arguments: the root certificate, and "nonce" or "plain". Each line of the input names a PEM file with
 * a certificate and its issuers; each line of the output says "good", or why not.
 */
class Asker {
    public static void main(String[] args) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate root;
        try (FileInputStream in = new FileInputStream(args[0])) {
            root = (X509Certificate) factory.generateCertificate(in);
        }
        boolean nonce = args[1].equals("nonce");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            List<Certificate> chain;
            try (FileInputStream in = new FileInputStream(Path.of(line).toFile())) {
                chain = new ArrayList<>(factory.generateCertificates(in));
            }
            System.out.println(check(factory.generateCertPath(chain), root, nonce));
        }
    }

    static String check(CertPath path, X509Certificate root, boolean nonce) throws Exception {
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.NO_FALLBACK));
        if (nonce) {
            checker.setOcspExtensions(List.of(new Nonce()));
        }
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(path, parameters);
            return "good";
        } catch (CertPathValidatorException e) {
            return e.getReason() + " at " + e.getIndex() + ": " + e.getMessage();
        }
    }

    /** A nonce of 32 octets (RFC 9654). */
    static class Nonce implements Extension {
        private final byte[] value = new byte[34];

        Nonce() {
            byte[] octets = new byte[32];
            new SecureRandom().nextBytes(octets);
            value[0] = 4;
            value[1] = 32;
            System.arraycopy(octets, 0, value, 2, octets.length);
        }

        public String getId() { return "1.3.6.1.5.5.7.48.1.2"; }
        public boolean isCritical() { return false; }
        public byte[] getValue() { return value; }
        public void encode(OutputStream out) throws IOException {
            // SEQUENCE of OBJECT IDENTIFIER and OCTET STRING
            out.write(new byte[] {0x30, 0x2f, 6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2, 4, 0x22});
            out.write(value);
        }
    }
}
